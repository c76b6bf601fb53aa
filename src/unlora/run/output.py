"""The folder that a job writes, refused before any work where it holds something else; no model is loaded for that."""

import re
from pathlib import Path

from unlora.artifacts import refuse_unwritable
from unlora.errors import InputError
from unlora.locks import entries


def refuse_strangers(output: Path, own: re.Pattern[str], *, kind: str) -> None:
    """Refuse an output folder that is a file, or holds something else than a `kind` of unlora does.

    Args:
        output: may not exist yet.
        own: matches the whole name of what may lie there.
        kind: "sweep" and the like, for the message.

    Raises:
        InputError: naming what lies there.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; --output names a folder.")
    for path in entries(output) if output.is_dir() else ():
        if not own.fullmatch(path.name):
            raise InputError(f"{output}: not empty and not a {kind} of unlora ({path.name}); choose another --output.")


def refuse_used_folder(output: Path) -> None:
    """Refuse an output folder that holds something or cannot be written, before any work.

    Raises:
        InputError: naming it.
    """
    if output.is_file() or (output.is_dir() and entries(output)):
        raise InputError(f"{output}: already exists and is not empty; choose another --output.")
    refuse_unwritable(output)
