"""A model hub on this machine: as much of its HTTP as the hub's own client needs to make a repository and fill it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


class Hub:
    """What it was sent."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        """Path in the repository -> content, after the commit."""
        self.uploads: dict[str, bytes] = {}
        """SHA-256 -> content of a large file."""
        self.calls: list[str] = []
        self.address = ""
        self.refuses: int | None = None
        """Status that every call is answered with."""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Answer a GET or a POST."""
        self.calls.append(path)
        if self.refuses is not None:
            return self.refuses, {"error": "refused"}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repositories.setdefault(name, asked)  # one that is there stays as it is
            return 200, {"url": f"{self.address}/{name}", "id": name}
        if path == "/api/validate-yaml":
            front = json.loads(body)["content"].split("---\n")[1]
            errors = [] if isinstance(yaml.safe_load(front), dict) else [{"message": "no metadata"}]
            return (400 if errors else 200), {"errors": errors, "warnings": []}
        if (name := path.removeprefix("/api/models/")) in self.repositories:
            return 200, {"id": name, "private": self.repositories[name].get("visibility") == "private"}
        if "/preupload/" in path:
            return 200, {"files": [self._mode(file["path"]) for file in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            objects = [self._upload(one["oid"], one["size"]) for one in json.loads(body)["objects"]]
            return 200, {"transfer": "basic", "objects": objects}
        if "/commit/" in path:
            for line in body.splitlines():
                self._commit(**json.loads(line))
            repository = path.removeprefix("/api/models/").partition("/commit/")[0]
            return 200, {"commitUrl": f"{self.address}/{repository}/commit/{'1' * 40}", "commitOid": "1" * 40}
        return 404, {"error": path}

    def _mode(self, name: str) -> dict[str, Any]:
        return {
            "path": name,
            "uploadMode": "lfs" if name.endswith(".safetensors") else "regular",
            "shouldIgnore": False,
        }

    def _upload(self, oid: str, size: int) -> dict[str, Any]:
        return {"oid": oid, "size": size, "actions": {"upload": {"href": f"{self.address}/put/{oid}"}}}

    def _commit(self, key: str, value: dict[str, Any]) -> None:
        if key == "file":
            self.files[value["path"]] = base64.b64decode(value["content"])
        if key == "lfsFile":
            self.files[value["path"]] = self.uploads[value["oid"]]


@contextmanager
def hub_here() -> Iterator[Hub]:
    """Serve one on a free port until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, answer = hub.answer(self.path.partition("?")[0], self._body())
            self._send(status, json.dumps(answer).encode())

        def do_GET(self) -> None:
            status, answer = hub.answer(self.path.partition("?")[0], b"")
            self._send(status, json.dumps(answer).encode())

        def do_PUT(self) -> None:
            content = self._body()
            hub.uploads[hashlib.sha256(content).hexdigest()] = content
            self._send(200, b"")

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
