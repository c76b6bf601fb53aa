"""From what a user writes to an attack: a name of the table, or "module:Class"."""

import importlib

from unlora.audit.attack import Attack
from unlora.audit.names import ATTACKS
from unlora.errors import InputError
from unlora.own_code import import_own


def make_attack(name: str) -> Attack:
    """Make an attack.

    Args:
        name: of the table, or "module:Class" for one of your own: a subclass of `Attack` that is made without
            arguments; its module is imported, from the current folder too.

    Raises:
        InputError: a class that is no attack.
    """
    if ":" not in name:
        module, _, class_name = ATTACKS[name].partition(":")
        return getattr(importlib.import_module(f"unlora.audit.{module}"), class_name)()
    kind = import_own(name, "attack")
    if not (isinstance(kind, type) and issubclass(kind, Attack)):
        raise InputError(f"attack '{name}': must subclass unlora.audit.attack.Attack.")
    missing = [*sorted(kind.__abstractmethods__), *(one for one in ("name", "question") if not hasattr(kind, one))]
    if missing:
        raise InputError(f"attack '{name}': has no {', '.join(missing)}.")
    return kind()
