"""Files that can be read to their end, as pipes and devices cannot, and folders that are there."""

from pathlib import Path

from unlora.errors import InputError


def refuse_irregular(path: Path) -> None:
    """Refuse a pipe, a device or a socket in place of a file: reading it might wait for ever.

    Raises:
        InputError: naming it.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: is a pipe or a device, not a file; write what it gives into a file first.")


def refuse_missing(folder: Path) -> None:
    """Refuse a folder that is not there before anything else is asked of it, or of what goes with it.

    Raises:
        InputError: it is not there, or a file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is a file, and a folder is read' if folder.is_file() else 'no such folder'}.")
