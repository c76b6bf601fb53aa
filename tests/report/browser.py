"""A real browser, where one is installed: Chromium without a window, spoken to by its own protocol through pipes."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
COMPLAINTS = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Security.certificateError")
"""Events that a page without faults does not cause."""

STARTER = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The protocol's pipes are the browser's file descriptors 3 and 4, whatever their numbers are here."""


def find_browser() -> str | None:
    """Path of the browser that UNLORA_BROWSER names, which must be there; else of the first that is installed."""
    named = os.environ.get("UNLORA_BROWSER")
    if named:
        found = shutil.which(named)
        assert found is not None, f"UNLORA_BROWSER: there is no {named}"
        return found
    return next((found for name in NAMES if (found := shutil.which(name)) is not None), None)


class Browser:
    """One page in one browser."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._number, self._rest, self._session = 0, b"", None
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def wait_for(self, event: str) -> None:
        while self._next().get("method") != event:
            pass

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._receive, 1 << 16)
            assert part, "the browser ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        if message.get("method") in COMPLAINTS:
            self.complaints.append(json.dumps(message["params"]))
        return message

    def open(self, page: Path, *, width: int, scheme: str) -> None:
        """Open a page in a window of this width, in the colours "light" or "dark"."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait_for("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def picture(self) -> bytes:
        """The whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@contextlib.contextmanager
def browser(program: str) -> Iterator[Browser]:
    """Start a browser and end it."""
    here_reads, it_writes = os.pipe()
    it_reads, here_writes = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]  # fmt: skip
        starter = [sys.executable, "-c", STARTER, str(it_reads), str(it_writes), *words]
        process = subprocess.Popen(
            starter, pass_fds=(it_reads, it_writes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(it_reads)
        os.close(it_writes)
        try:
            yield Browser(here_writes, here_reads)
        finally:
            process.kill()
            process.wait()
            os.close(here_writes)
            os.close(here_reads)
