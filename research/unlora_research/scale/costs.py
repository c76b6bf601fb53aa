"""What a work costs: seconds, taken in turn with all others, and bytes on disk of what it finds."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from unlora.importance import ContrastMap, ImportanceMap

RELEASED_PASSES = 10
"""The released arithmetic runs one of them and counts its seconds so often."""


def seconds_in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every work in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            passes = RELEASED_PASSES if name.endswith("published") else 1
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(passes * (time.perf_counter() - start))
    return seconds


def bytes_on_disk(measured: ImportanceMap | ContrastMap) -> int:
    """Size of the file it is saved to."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "map.safetensors"
        measured.save(file)
        return file.stat().st_size
