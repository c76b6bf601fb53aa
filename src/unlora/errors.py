"""One error family: what went wrong, where, and what would be right."""

import difflib
import errno
import re
from collections.abc import Iterable

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A quota that is used up, or a limit on the size of files, is a full disk too."""
STORAGE_ERRORS = (*NO_SPACE, errno.EROFS, errno.EACCES, errno.EIO)
"""What the system says when a file cannot be written; a network file system says EIO when it is full or gone."""
NAME_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
"""What the system says of a name that no file can have where it is looked for."""


class UnloraError(Exception):
    """A failure that the command line prints as one line. Exit code 1: the work itself failed."""

    exit_code = 1


class InputError(UnloraError):
    """Wrong use or bad input: the message says what is wrong, where, and what would be right. Exit code 2."""

    exit_code = 2


class TrainingDivergedError(UnloraError):
    """The loss became infinite or not a number."""


class FunctionMovedError(UnloraError):
    """The anchored adapter changed the model's output before any training step."""


def kind_in_words(error: Exception) -> str:
    """The kind of an error without Python's spelling: "zero division" for ZeroDivisionError."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return words.removesuffix(" error")


def text_in_words(error: Exception) -> str:
    """What an error says, in one line, without the names of errors that some libraries put into their sentences."""
    return re.sub(r"\b[A-Za-z_]+(?:Error|Exception): ", "", " ".join(str(error).split())).rstrip(".")


def listed(names: Iterable[str], longest: int = 200) -> str:
    """Join names with commas, as many as fit into so many characters; the rest is counted."""
    every = list(names)
    shown = [name for place, name in enumerate(every) if not place or len(", ".join(every[: place + 1])) <= longest]
    return ", ".join(shown) + (f" and {len(every) - len(shown)} more" if len(shown) < len(every) else "")


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" when one of `choices` is spelt almost like `name`, otherwise an empty string."""
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""
