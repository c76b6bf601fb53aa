"""Device, number format, seeds, and what a stage costs."""

import ctypes
import functools
import importlib.metadata
import platform
import random
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import psutil
import torch

from unlora.errors import InputError

PACKAGES = (
    "unlora",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "safetensors",
    "numpy",
    "scipy",
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:1" into a device; "auto" takes the first accelerator there is.

    Raises:
        InputError: the device does not exist here.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator() or torch.device("cpu") if _accelerated() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device '{name}': not a device; use auto, cpu or cuda.") from None
    if device.type != "cpu" and not _accelerated():
        raise InputError(f"device '{name}': this machine has no accelerator that torch can use; use cpu.")
    return device


def _accelerated() -> bool:
    return torch.accelerator.is_available()


def free_memory(device: torch.device) -> int:
    """Bytes that nobody uses on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn a name into a dtype; "auto" is float32 on a CPU and bfloat16 on an accelerator (`run.number_format`)."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return DTYPES[name]


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


@functools.cache  # Once a process is enough.
def keep_freed_memory() -> None:
    """Let the C library keep large freed blocks for the next step instead of handing them back, where it is glibc.

    Logits and activations come and go at every step; pages that are handed back are zeroed anew when they come back,
    which took a tenth to a quarter of a step on a CPU (docs/performance.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**31 - 1)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (the only place that touches global generators)."""
    random.seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002  libraries draw from the global generator
    torch.manual_seed(seed)


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that decide a result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    return found | {package: _version(package) for package in PACKAGES}


@functools.cache  # Each is read from a file, and a process may start many runs.
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def peak_memory_bytes() -> int:
    """Peak memory so far: of the accelerator when there is one, otherwise of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # Linux hands ru_maxrss on to child processes; this figure is the process's own.
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass
class Stopwatch:
    """Seconds and peak memory per stage, in the order the stages ran."""

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage; the peak is the process's (or device's) so far."""
        start = time.perf_counter()
        yield
        self.stages[name] = {
            "seconds": round(time.perf_counter() - start, 3),
            "peak_memory_bytes": peak_memory_bytes(),
        }
