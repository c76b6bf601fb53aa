"""A class of the user's own, named as "module:Class"."""

import importlib
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from unlora.errors import InputError, listed, nearest


def import_own(text: str, where: str) -> object:
    """Import what "module:Class" names, from what is installed and then from the current folder.

    Args:
        text: what the user wrote.
        where: what the messages call it.

    Raises:
        InputError: the module cannot be imported, or has no such class.
    """
    module_name, _, class_name = text.partition(":")
    try:
        importlib.invalidate_caches()
        with _current_folder_last():
            module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's own code raises
        # What the module's own code raises is its author's to read; Python's word for a missing module says nothing.
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        reason = kind + " ".join(str(error).split())
        raise InputError(f"{where} '{text}': {module_name or 'the module'} cannot be imported ({reason}).") from None
    if not hasattr(module, class_name):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise InputError(f"{where} '{text}': {module_name} has no '{class_name}'.{nearest(class_name, classes)}")
    return getattr(module, class_name)


def refuse_unknown(names: Sequence[str], known: Collection[str], what: str) -> None:
    """Refuse a name that a table does not have; a class of the user's own is imported later.

    Raises:
        ValueError: naming it, and what there is.
    """
    for name in names:
        if ":" not in name and name not in known:
            hint = nearest(name, known) or f" Known: {listed(known)}; or module:Class for one of your own."
            raise ValueError(f"unknown {what} '{name}'.{hint}".removesuffix("."))


@contextmanager
def _current_folder_last() -> Iterator[None]:
    """Look in the current folder too, but after everything that is installed."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
