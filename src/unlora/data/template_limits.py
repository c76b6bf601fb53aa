"""Limits for a piece of somebody else's program: a chat template that runs away is stopped before the machine is."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

SECONDS = 10.0
MEMORY_BYTES = 2**30
"""Beyond what the process has when the limit begins."""


@contextmanager
def limited(seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES) -> Iterator[None]:
    """Give what is done inside so much time (in the main thread) and memory (on Linux); elsewhere there is no limit.

    Raises:
        TimeoutError: raised inside, when the time is over.
        MemoryError: raised inside, by what would have taken more.
    """
    with _limited_memory(memory_bytes), _limited_time(seconds):
        yield


@contextmanager
def _limited_time(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _limited_memory(memory_bytes: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    process = psutil.Process()
    before = process.rlimit(psutil.RLIMIT_AS)
    allowed = process.memory_info().vms + memory_bytes
    if before[0] != psutil.RLIM_INFINITY:
        allowed = min(allowed, before[0])
    process.rlimit(psutil.RLIMIT_AS, (allowed, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_AS, before)
