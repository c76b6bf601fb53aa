"""Which checkpoint of an interrupted training can be gone on from."""

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlora.artifacts import file_sha256, read_json_object, tensors_error, write_json

STATE = "trainer_state.json"
NEEDED = ("adapter_config.json", "*.safetensors", "scheduler.pt", "rng_state*.pth")
"""What the Trainer must find to go on as if it had never stopped; without one it would go on silently, and wrongly."""

SEAL = "sha256.json"
"""Hash of every other file: what parses can still be of another kind or shape than what was written."""

OPTIMISER, ZERO_OPTIMISER = "optimizer*", "global_step*/*_optim_states.pt"
"""One of them is needed as well: in one file, or, under ZeRO-3, in one a process."""


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to the end and is whole.

    The Trainer writes trainer_state.json last, so a checkpoint whose state does not parse was cut short.
    """
    for checkpoint in _newest_first(folder):
        if _parses(checkpoint / STATE) and damage(checkpoint) is None:
            return checkpoint
    return None


def damage(checkpoint: Path) -> str | None:
    """Name the first file that is missing, cut short or not as it was sealed; None for a whole checkpoint.

    One without a seal is of an older version, or a kill came in between: lengths and archives alone are looked at.
    """
    optimiser = ZERO_OPTIMISER if sharding_of(checkpoint)[0] == "zero3" else OPTIMISER
    for pattern in (*NEEDED, optimiser):
        if not any(checkpoint.glob(pattern)):
            return pattern
    for file in sorted(checkpoint.rglob("*")):
        if not _is_whole(file):
            return file.name
    sealed = checkpoint / SEAL
    return _unlike_its_seal(checkpoint, read_json_object(sealed)) if sealed.is_file() else None


def seal(checkpoint: Path) -> None:
    """Write down the hash of every file of a checkpoint that is whole."""
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.name != SEAL)
    write_json(checkpoint / SEAL, {str(file.relative_to(checkpoint)): file_sha256(file) for file in files})


def _unlike_its_seal(checkpoint: Path, hashes: Mapping[str, Any]) -> str | None:
    for name, sha256 in hashes.items():
        if not (checkpoint / name).is_file() or file_sha256(checkpoint / name) != sha256:
            return name
    return None


def sharding_of(checkpoint: Path) -> tuple[str | None, int | None]:
    """By which engine a checkpoint was written, if weights were in pieces, and how many processes must go on from it.

    None stands for whole weights, and for any number of processes.
    """
    if any(checkpoint.glob("pytorch_model_fsdp*")):
        return "fsdp2", None
    pieces = len(list(checkpoint.glob(ZERO_OPTIMISER)))
    return ("zero3", pieces) if any(checkpoint.glob("global_step*")) else (None, None)


def remove_damaged_checkpoints(folder: Path) -> list[str]:
    """Remove what cannot be gone on from, so that it takes no room and is never counted; return the names.

    Those cut short while they were written are not named: that is what a kill leaves.
    """
    damaged = []
    for checkpoint in _newest_first(folder):
        if _parses(checkpoint / STATE):
            if damage(checkpoint) is None:
                continue
            damaged.append(checkpoint.name)
            # First, so that a kill in between leaves nothing that could be taken for whole.
            (checkpoint / STATE).unlink(missing_ok=True)
        shutil.rmtree(checkpoint, ignore_errors=True)
    return damaged


def _newest_first(folder: Path) -> list[Path]:
    own = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(own, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True)


def _parses(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _is_whole(file: Path) -> bool:
    if file.suffix == ".safetensors":
        return tensors_error(file) is None
    if file.suffix == ".json":
        return _parses(file)
    return file.suffix not in (".pt", ".pth", ".bin") or zipfile.is_zipfile(file)
