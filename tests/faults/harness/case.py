"""One input: how it is made, the command that meets it, and what is right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.harness.world import World

Make = Callable[[Path, World], list[str]]
"""Writes the input below the folder it is given, which is the current one, and returns the arguments of `unlora`."""
Check = Callable[[Path, World, str], str | None]
"""Given the folder, the world and what the command printed: what is wrong with its result, or None."""

CHANGES_OF_A_RUN = ("*/record.json", "*/report.html", "*/audit/audit.html")


@dataclass(frozen=True)
class Right:
    """What the command should do with an input."""

    codes: tuple[int, ...]
    says: tuple[str, ...] = ()
    """What the line of a refusal must hold; "a|b": one of the two."""
    check: Check | None = None
    """Of the result, where the command works."""


def refused(*says: str) -> Right:
    """Exit code 2, one line, nothing written."""
    return Right((2,), says)


def fails(*says: str) -> Right:
    """Exit code 1, one line."""
    return Right((1,), says)


def works(check: Check | None = None) -> Right:
    """Exit code 0, and the right numbers."""
    return Right((0,), (), check)


def either(*says: str, check: Check | None = None, codes: tuple[int, ...] = (0, 2)) -> Right:
    """A refusal, or the right numbers: where both are an honest answer."""
    return Right(codes, says, check)


@dataclass(frozen=True)
class Case:
    """One input of an area."""

    name: str
    make: Make
    right: Right
    leaves: tuple[str, ...] = ()
    """Patterns of files that a command that ends with an error may leave or change."""
    wall: float = 180.0
    """Seconds after which a command that does not even compute is taken to hang."""


def table(rows: Sequence[Case]) -> dict[str, Case]:
    """Cases by name.

    Raises:
        ValueError: two of one name.
    """
    found: dict[str, Case] = {}
    for row in rows:
        if row.name in found:
            raise ValueError(f"two cases are called {row.name!r}")
        found[row.name] = row
    return found


def arguments(*parts: Any) -> list[str]:
    """Parts of a command as text."""
    return [str(part) for part in parts]
