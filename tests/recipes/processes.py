"""Runs commands in processes of their own, which tests kill or starve of disk space.

Processes are forked from a server that has imported everything once, so that each starts in a moment.
"""

import importlib
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.recipes.processes", "unlora.recipes.unlearn", "unlora.recipes.fine_tune"])

KILLED = -signal.SIGKILL


def start(arguments: list[str], error_file: Path, sabotage: Callable[[], None] | None = None) -> BaseProcess:
    """Start `unlora ARGUMENTS` in its own process; `sabotage` runs there first."""
    process = _SERVER.Process(target=_run, args=(arguments, error_file, sabotage))
    process.start()
    return process


def finish(arguments: list[str], error_file: Path, sabotage: Callable[[], None] | None = None) -> int:
    """Run `unlora ARGUMENTS` to its end and return the exit code."""
    process = start(arguments, error_file, sabotage)
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def _run(arguments: list[str], error_file: Path, sabotage: Callable[[], None] | None) -> None:
    from unlora.cli.main import main

    with error_file.open("w") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
        os.dup2(errors.fileno(), sys.stdout.fileno())
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


def wait_for(condition: Callable[[], bool], process: BaseProcess | Any, seconds: float = 60) -> None:
    """Poll until `condition` holds; the process must still be running then."""
    deadline = time.monotonic() + seconds
    while not condition():
        alive = process.is_alive() if isinstance(process, BaseProcess) else process.poll() is None
        assert alive, "the process ended first"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)
