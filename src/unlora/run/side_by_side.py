"""Work that falls into pieces, several at a time, each in a process that ends when the one that started it does."""

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch

from unlora.errors import UnloraError

Result = TypeVar("Result")

WATCH_SECONDS = 1.0
"""How often a process looks whether the one that started it is still there."""
PATIENCE = 20 * WATCH_SECONDS
"""How long to wait for the lock of a piece that a process of a killed start may still hold."""


def side_by_side(
    function: Callable[..., Result], work: Sequence[tuple[Any, ...]], jobs: int, *, what: str
) -> Iterator[Result]:
    """Call `function(*one)` for each piece of work, and yield what it returns: in order by one job, else as they end.

    Args:
        function: of a module, as several processes need it.
        work: its arguments, piece by piece.
        jobs: pieces at a time; one works in this process.
        what: the whole is called in a message.

    Raises:
        UnloraError: a process was killed.
    """
    jobs = min(jobs, max(len(work), 1))
    if jobs == 1:
        for one in work:
            yield function(*one)
        return
    import joblib  # comes with scikit-learn; one job does without
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    threads = max((os.cpu_count() or 1) // jobs, 1)
    try:
        with joblib.parallel_config(backend="loky", inner_max_num_threads=threads):
            parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
            for found in parallel(joblib.delayed(_work)(os.getpid(), threads, function, one) for one in work):
                yield cast(Result, found)
    except TerminatedWorkerError:
        raise UnloraError(
            f"a process of the {what} was killed (out of memory?); the same command goes on where it stopped, "
            "with --jobs 1 in less memory."
        ) from None


def _work(parent: int, threads: int, function: Callable[..., Result], one: tuple[Any, ...]) -> Result:
    """Do one piece in a process of its own, as long as the one that started it lives."""
    torch.set_num_threads(threads)
    _end_with(parent)
    return function(*one)


@functools.cache  # One watch in a process, however many pieces are done there.
def _end_with(parent: int) -> None:
    """End this process soon after its parent has: killed, that cannot end it, and started again it needs the folder."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
