"""Every class in a process of its own that has a time limit: what hangs or crashes is a verdict too."""

import gc
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from unlora_research.model_map.verdict import Verdict

LOOK = 0.05
"""Seconds between two looks at the processes."""


class _Running(NamedTuple):
    process: BaseProcess
    answer: Connection
    until: float


def try_all(kinds: Sequence[str], *, jobs: int, limit: float) -> Iterator[Verdict]:
    """Yield the verdict of every model type as it comes, in no order.

    Args:
        kinds: model types.
        jobs: processes at a time, each with one thread.
        limit: seconds for one class; what takes longer is ended.
    """
    context = _context()
    waiting, running = list(reversed(kinds)), dict[str, _Running]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                kind = waiting.pop()
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_one, args=(kind, there), daemon=True)
                process.start()
                there.close()
                running[kind] = _Running(process, here, time.monotonic() + limit)
            for kind in list(running):
                verdict = _look(kind, running[kind], limit)
                if verdict is not None:
                    del running[kind]
                    yield verdict
            time.sleep(LOOK)
    finally:
        for one in running.values():
            one.process.kill()


def all_kinds() -> list[str]:
    """Every model type that a causal language model, or one of several parts with a text part, has."""
    here, there = _context().Pipe(duplex=False)
    _context().Process(target=_kinds, args=(there,), daemon=True).start()
    return here.recv()


def _context() -> ForkServerContext:
    """Processes begin as copies of one that has imported torch and transformers; this one needs neither."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unlora_research.model_map.path"])
    return context


def _kinds(answer: Connection) -> None:
    from unlora_research.model_map.path import all_kinds

    answer.send(all_kinds())


def _look(kind: str, running: _Running, limit: float) -> Verdict | None:
    """Return the verdict of a class that has one; None while it works."""
    said: str | None = None
    if running.answer.poll():
        try:
            return Verdict.model_validate_json(running.answer.recv_bytes())
        except EOFError:
            running.process.join()
            said = f"the process ended with {running.process.exitcode}"
    elif time.monotonic() > running.until:
        running.process.kill()
        said = f"not done after {limit:.0f} seconds"
    return None if said is None else Verdict(kind=kind, name="?", outcome="error", stage="process", line=said)


def _one(kind: str, answer: Connection) -> None:
    import torch

    from unlora_research.model_map.path import try_class

    gc.freeze()  # What was imported before is not looked through again at every collection.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="unlora-map-") as place:
        answer.send_bytes(try_class(kind, Path(place)).model_dump_json().encode())
