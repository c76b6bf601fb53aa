"""From what a user writes to a term: a name or "module:Class", and a mapping of parameters."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from unlora.errors import InputError, nearest
from unlora.losses.inputs import ForgetInputs, RetainInputs
from unlora.losses.term import ForgetTerm, RetainTerm
from unlora.own_code import import_own

TermType = TypeVar("TermType", bound=ForgetTerm | RetainTerm)

_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", NoneType: "null"}


def find_term(
    kind: type[TermType],
    known: Mapping[str, type[TermType]],
    text: str,
    *,
    where: str,
    others: Sequence[str] = (),
) -> type[TermType]:
    """Find a term's class.

    Args:
        kind: what it must be.
        known: those with a name.
        text: a name, or "module:Class" for one of your own: the module is imported, from the current folder too.
        where: named in messages.
        others: further names for the message.

    Raises:
        InputError: an unknown name, a module that cannot be imported, or a class that is no such term.
    """
    if ":" not in text:
        if text not in known:
            choices = [*known, *others]
            hint = nearest(text, choices) or f" Known: {', '.join(choices)}; or module:Class for one of your own."
            raise InputError(f"Objective: unknown {where} '{text}'.{hint}")
        return known[text]
    term = import_own(text, f"Objective: {where}")
    if not (isinstance(term, type) and issubclass(term, kind) and dataclasses.is_dataclass(term)):
        raise InputError(f"Objective: {where} '{text}' must be a dataclass that subclasses {kind.__name__}.")
    return term


def make_term(term: type[TermType], parameters: Mapping[str, Any]) -> TermType:
    """Make a term with the given parameters, its own defaults for the rest.

    Raises:
        InputError: a name it does not have, or a value it does not take.
    """
    name = refuse_incomplete(term)
    fields = [field.name for field in dataclasses.fields(term)]  # pyright: ignore[reportArgumentType]  it is one
    values = {}
    for key, value in parameters.items():
        if key not in fields:
            known = f" Known: {', '.join(fields)}." if fields else " It has none."
            raise InputError(f"Objective: '{name}' has no parameter '{key}'.{nearest(key, fields) or known}")
        values[key] = _typed(name, key, value, _annotation(term, key))
    try:
        return term(**values)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"Objective: '{name}' cannot be made ({error}).") from None


def refuse_incomplete(term: type[ForgetTerm | RetainTerm]) -> str:
    """Check what a term says of itself, and return its name.

    Raises:
        InputError: it has no name, an unfinished `__call__`, or needs something that there is not.
    """
    name: object = getattr(term, "name", None)
    if not isinstance(name, str) or not name:
        raise InputError(f'Objective: {term.__name__} needs a name: name = "{term.__name__.lower()}" in its class.')
    if term.__abstractmethods__:
        raise InputError(f"Objective: '{name}' has no __call__.")
    inputs = ForgetInputs if issubclass(term, ForgetTerm) else RetainInputs
    known = [field.name for field in dataclasses.fields(inputs) if field.name != "predictions"]
    for need in term.needs:
        if need not in known:
            hint = nearest(need, known) or f" Known: {', '.join(known)}."
            raise InputError(f"Objective: '{name}' needs '{need}', which {inputs.__name__} does not have.{hint}")
    return name


def _annotation(term: type[Any], key: str) -> Any:
    try:
        return get_type_hints(term)[key]
    except NameError:  # annotations that a module of one's own imports for type checkers only
        return Any


def _typed(term: str, key: str, value: Any, hint: Any) -> Any:
    """Return the value in the type that the parameter is annotated with; unusual annotations are not checked."""
    allowed = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if float in allowed and type(value) is int:
        return float(value)
    if all(kind in _WORDS for kind in allowed) and type(value) not in allowed:
        words = " or ".join(_WORDS[kind] for kind in allowed)
        raise InputError(f"Objective: '{term}': {key} must be {words}, found {value!r}.")
    return value
