"""`unlora.json`, the slip beside an adapter that says which model it was made for.

PEFT's own `adapter_config.json` names the base, and a name says neither whether the weights are the same nor, once the
folder is published, where they lie. Other tools leave this file alone.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unlora.artifacts import read_json_object
from unlora.errors import InputError

FILE = "unlora.json"

FINGERPRINT_LENGTH = 64


@dataclass(frozen=True)
class Origin:
    """The model that an adapter was made for."""

    fingerprint: str
    """Of the weights as they were loaded, from `unlora.models.load.fingerprint`."""
    dtype: str
    """Number format that they were loaded in."""
    quantisation: str | None
    """How their linear layers were rounded: 4bit, 8bit or not at all."""
    base: str | None
    """From where the adapter's folder finds it: "embedded", a hub id, or a path that begins with "."; None where that
    would say whose machine it was."""

    def to_json(self) -> dict[str, Any]:
        """Content of `unlora.json`."""
        return {"schema": 1, "made_for": asdict(self)}


def read_origin(folder: Path) -> Origin | None:
    """Return what an adapter's folder says of the model it was made for; None where it says nothing.

    Raises:
        InputError: the file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    found = read_json_object(file).get("made_for")
    try:
        origin = Origin(**found) if isinstance(found, dict) else None
    except TypeError:
        origin = None
    if origin is None or not _is_whole(origin):
        raise InputError(f"{file}: not as unlora writes it; put it back, or remove it to go on without what it says.")
    return origin


def _is_whole(origin: Origin) -> bool:
    texts = isinstance(origin.fingerprint, str) and isinstance(origin.dtype, str)
    optional = all(value is None or isinstance(value, str) for value in (origin.quantisation, origin.base))
    return texts and optional and len(origin.fingerprint) == FINGERPRINT_LENGTH


def find_from(folder: Path, base: str) -> str:
    """Resolve a base as a folder names it: a path that begins with "." is meant from there, all else stands as it is.

    Foreign tools mean such a path from where they were started, so that is the second guess.
    """
    if base.split("/")[0] not in (".", ".."):
        return base
    from_folder = os.path.normpath(folder / base)
    return from_folder if os.path.isdir(from_folder) or not os.path.isdir(base) else base
