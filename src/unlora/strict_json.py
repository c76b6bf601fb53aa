"""JSON as it is meant: read in one way or refused in one line."""

import json
from typing import Any

from unlora.errors import InputError


def parse_json(text: str, where: str, *, with_line: bool = False) -> Any:
    """Parse JSON in which no object names a key twice: which of two values counts would be a guess.

    Raises:
        InputError: naming `where`, and the line too where the text has several.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if with_line else ""
        raise InputError(f"{where}{line}: not valid JSON ({error.msg}, column {error.colno}).") from None
    except _KeyTwiceError as error:
        raise InputError(f"{where}: key '{error}' stands twice in one object; keep one.") from None
    except RecursionError:
        raise InputError(f"{where}: not JSON that can be read (brackets nested too deep).") from None
    except ValueError:
        raise InputError(f"{where}: not JSON that can be read (a number with thousands of digits).") from None


class _KeyTwiceError(ValueError):
    """Carries the key."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        raise _KeyTwiceError(next(key for key, _ in pairs if key in seen or seen.add(key)))
    return found
