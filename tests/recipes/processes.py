"""Runs commands in processes of their own, which tests kill or starve of disk space.

Processes are forked from a server that has imported everything once, so that each starts in a moment.
"""

import gc
import importlib
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "tests.recipes.processes",
        "unlora.cli.main",
        "unlora.cli.tables",
        "unlora.recipes.fine_tune",
        "unlora.recipes.unlearn",
        "transformers.models.llama.modeling_llama",
    ]
)

KILLED = -signal.SIGKILL


class Running:
    """`unlora ARGUMENTS` in a process of its own."""

    def __init__(self, arguments: list[str], sabotage: Callable[[], None] | None = None) -> None:
        """Start it; `sabotage` runs there first."""
        self._output, output = SERVER.Pipe(duplex=False)
        self._process = SERVER.Process(target=_run, args=(arguments, output, sabotage, os.environ["UNLORA_CACHE"]))
        self._process.start()
        output.close()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Poll until `condition` holds; the process must still be running then."""
        wait_for(condition, self._process.is_alive)

    def kill(self) -> None:
        self._process.kill()

    def finish(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and all that was printed."""
        text = read_all(self._output)
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode, text


def run(arguments: list[str], sabotage: Callable[[], None] | None = None) -> tuple[int, str]:
    """Run `unlora ARGUMENTS` to its end; return the exit code and all that was printed."""
    return Running(arguments, sabotage).finish()


def wait_for(condition: Callable[[], bool], alive: Callable[[], bool]) -> None:
    """Poll until `condition` holds, as long as the process lives."""
    deadline = time.monotonic() + 120
    while not condition():
        assert alive(), "the process ended first"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


def read_all(pipe: Connection) -> str:
    """All that comes out of a pipe until its other end is closed."""
    text = b""
    while part := os.read(pipe.fileno(), 65536):
        text += part
    return text.decode()


def _run(arguments: list[str], output: Connection, sabotage: Callable[[], None] | None, cache: str) -> None:
    from unlora.cli.main import main

    gc.freeze()  # what the server has imported is not looked through at every collection
    os.environ["UNLORA_CACHE"] = cache  # the server's own is that of the test that started it
    # A pipe, not a file: a limit on the size of files must not reach what is printed.
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output.fileno(), stream.fileno())
    if sabotage is not None:
        sabotage()
    main(arguments, prog_name="unlora")


class KillAt:
    """Kills the process by SIGKILL in the `count`-th call of a function, before it does anything."""

    def __init__(self, module: str, path: str, count: int = 1) -> None:
        self.module, self.path, self.count = module, path, count

    def __call__(self) -> None:
        _wrap(self.module, self.path, self._hit)

    def _hit(self, original: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.count -= 1
        if self.count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)


class KillAfterHalf(KillAt):
    """Kills the process when the function has written its files, half of the largest one being cut off."""

    def _hit(self, original: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        self.count -= 1
        if self.count == 0:
            folder = next(Path(one) for one in arguments if isinstance(one, str | Path) and Path(one).exists())
            files = [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.is_file()]
            largest = max(files, key=lambda path: path.stat().st_size)
            os.truncate(largest, largest.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return result


class LimitFiles:
    """Lets no file grow beyond `size` bytes, from the first call of a function on (or at once)."""

    def __init__(self, size: int, module: str = "", path: str = "") -> None:
        self.size, self.module, self.path = size, module, path

    def __call__(self) -> None:
        if self.module:
            _wrap(self.module, self.path, self._hit)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))

    def _hit(self, original: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))
        return original(*arguments, **options)


def _wrap(module: str, path: str, hit: Callable[..., Any]) -> None:
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        return hit(original, *arguments, **options)

    setattr(owner, name, wrapped)
