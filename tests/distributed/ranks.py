"""Runs a function in several processes at once, as torchrun would start them, over gloo on this machine."""

import gc
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tests.recipes.processes import SERVER, read_all


class Ended(NamedTuple):
    """How one process ended."""

    code: int
    text: str
    """All that it printed."""


def run_ranks(count: int, work: Callable[..., None], *arguments: Any, **environment: str) -> list[Ended]:
    """Run `work(*arguments)` in `count` processes to its end.

    As torchrun does, the others are ended once one has failed; what they printed until then counts.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
    shared |= {"LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1", "UNLORA_CACHE": os.environ["UNLORA_CACHE"]}
    started = []
    for rank in range(count):
        output, pipe = SERVER.Pipe(duplex=False)
        process = SERVER.Process(
            target=_run, args=(work, arguments, pipe, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        )
        process.start()
        pipe.close()
        started.append((process, output))
    _wait([process for process, _ in started])
    return [Ended(process.exitcode, read_all(output)) for process, output in started]


def _wait(running: list[Any]) -> None:
    while any(process.is_alive() for process in running):
        for process in running:
            process.join(0.1)
        if any(process.exitcode not in (None, 0) for process in running):
            for process in running:
                process.terminate()


def _run(work: Callable[..., None], arguments: tuple[Any, ...], pipe: Connection, environment: dict[str, str]) -> None:
    gc.freeze()  # what the server has imported is not looked through at every collection
    os.environ.update(environment)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(pipe.fileno(), stream.fileno())
    work(*arguments)
