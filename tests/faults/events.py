"""Kills a process at a chosen change of its files.

Python announces every file that it opens to write, renames or removes before it does so (PEP 578, audit hooks). What
Rust and C++ write (safetensors, torch.save) is not announced, but every such file is followed by a change that is.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class KillAtChange:
    """SIGKILL before the `count`-th change below `folders`; run in the process itself, as a sabotage.

    With `half`, the file written last is cut, if it is one of which a kill can leave a part.
    """

    def __init__(self, folders: list[Path], count: int, *, half: bool = False) -> None:
        self.folders = [str(folder) for folder in folders]
        self.count = count
        self.half = half
        self.opened = ""
        self.started = 0

    def __call__(self) -> None:
        self.started = time.time_ns()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES and not (event == "open" and (arguments[2] or 0) & WRITING):
            return
        path = whole_path(event, arguments)
        if path is None or not path.startswith(tuple(self.folders)):
            return
        self.count -= 1
        if self.count == 0:
            self._kill()
        if event == "open" and self.count > 0:
            self.opened = path

    def _kill(self) -> None:
        if self.half:
            files = [file for folder in self.folders for file in Path(folder).rglob("*") if self._is_its_own(file)]
            last = max(files, key=lambda file: file.stat().st_mtime_ns, default=None)
            # A log that was rewritten as a whole came by a rename: it is never there in part.
            if last is not None and may_be_half(last) and (last.suffix != ".jsonl" or str(last) == self.opened):
                cut(last)
        os.kill(os.getpid(), signal.SIGKILL)

    def _is_its_own(self, file: Path) -> bool:
        """Whether this process wrote it: what an earlier one finished is not in the middle of being written."""
        return file.is_file() and file.stat().st_mtime_ns >= self.started


def whole_path(event: str, arguments: tuple[Any, ...]) -> str | None:
    """The path that is changed; None for an open file. `shutil.rmtree` names files within an open folder."""
    path = arguments[0]
    if not isinstance(path, str | os.PathLike):
        return None
    place = {"os.rename": 2, "os.remove": 1, "os.mkdir": 2, "os.rmdir": 1}.get(event)
    if place is None or arguments[place] < 0:
        return os.fspath(path)
    return os.path.join(os.readlink(f"/proc/self/fd/{arguments[place]}"), os.fspath(path))


def cut(file: Path) -> None:
    """Leave half of a file; of the log, to which lines are appended, all but half of the last line."""
    content = file.read_bytes()
    whole = content.rstrip(b"\n").rfind(b"\n") + 1 if file.suffix == ".jsonl" else 0
    os.truncate(file, whole + (len(content) - whole) // 2)


def may_be_half(file: Path) -> bool:
    """Whether a file is written in place, so that a kill can leave half of it."""
    return file.name == "train_log.jsonl" or "checkpoints" in file.parts or any(p.startswith(".") for p in file.parts)
