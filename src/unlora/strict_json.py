"""JSON as it is meant: read in one way or refused in one line."""

import json
import math
from typing import Any

from unlora.errors import InputError


def parse_json(text: str, where: str, *, with_line: bool = False, finite: bool = True) -> Any:
    """Parse JSON in which no object names a key twice: which of two values counts would be a guess.

    Args:
        text: to parse.
        where: names it in messages.
        with_line: whether a message says the line.
        finite: whether NaN and infinities, which JSON does not have and Python writes, are refused.

    Raises:
        InputError: naming `where`, and the line too where the text has several.
    """
    numbers: dict[str, Any] = {"parse_constant": _refuse, "parse_float": _finite} if finite else {}
    try:
        return json.loads(text, object_pairs_hook=_unique, **numbers)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if with_line else ""
        raise InputError(f"{where}{line}: not valid JSON ({error.msg}, column {error.colno}).") from None
    except _KeyTwiceError as error:
        raise InputError(f"{where}: key '{error}' stands twice in one object; keep one.") from None
    except _NotFiniteError as error:
        raise InputError(f"{where}: {error} is no number of JSON; write a finite one, or null.") from None
    except RecursionError:
        raise InputError(f"{where}: not JSON that can be read (brackets nested too deep).") from None
    except ValueError:
        raise InputError(f"{where}: not JSON that can be read (a number with thousands of digits).") from None


class _KeyTwiceError(ValueError):
    """Carries the key."""


class _NotFiniteError(ValueError):
    """Carries what stands there."""


def _refuse(constant: str) -> float:
    raise _NotFiniteError(constant)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _NotFiniteError(digits[:20])
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        raise _KeyTwiceError(next(key for key, _ in pairs if key in seen or seen.add(key)))
    return found
