"""The attackers of relearning that have a name: the only list of them. A row loads its class when it is asked for."""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from unlora.errors import InputError
from unlora.own_code import import_own, refuse_unknown

if TYPE_CHECKING:
    from unlora.audit.attackers import Attacker

LORA_RATES = ("5e-5", "2e-4", "5e-4", "2e-3")
FULL_RATES = ("5e-6", "2e-5", "1e-4")
LESSONS = {
    "few": "a tenth of the forget set",
    "full": "the whole forget set",
    "retain": "retain records alone",
    "unrelated": "unrelated text",
}
"""What an attacker learns from, in words."""


class AttackerRow(NamedTuple):
    """One attacker."""

    home: str
    """module:Class, in this package."""
    summary: str
    fields: Mapping[str, Any]


def _rows(kind: str, home: str, what: str, rates: tuple[str, ...]) -> dict[str, AttackerRow]:
    return {
        f"{kind}_{rate}_{lesson}": AttackerRow(
            home, f"{what} at {rate} on {words}", {"learning_rate": float(rate), "learns_from": lesson}
        )
        for lesson, words in LESSONS.items()
        for rate in rates
    }


ATTACKERS: dict[str, AttackerRow] = {
    **_rows("lora", "attackers:LoraAttacker", "LoRA of rank 8", LORA_RATES),
    **_rows("full", "attackers:FullAttacker", "every weight", FULL_RATES),
}

DEFAULT_ATTACKERS = (
    "lora_5e-4_few",
    "lora_2e-4_few",
    "lora_5e-4_full",
    "full_1e-4_retain",
    "full_1e-4_unrelated",
)
"""What a plain audit tries: docs/results/attackers says how they were chosen."""


def make_attacker(name: str) -> "Attacker":
    """Make an attacker.

    Args:
        name: of the table, or "module:Class" for one of your own: a subclass of `Attacker` whose fields have defaults;
            its module is imported, from the current folder too.

    Raises:
        InputError: an unknown name, or a class that is no attacker or cannot be made.
    """
    if ":" in name:
        return _own(name)
    try:
        refuse_unknown([name], ATTACKERS, "attacker")
    except ValueError as error:
        raise InputError(f"relearning: {error}.") from None
    module, _, class_name = ATTACKERS[name].home.partition(":")
    kind = getattr(importlib.import_module(f"unlora.audit.{module}"), class_name)
    return kind(**ATTACKERS[name].fields)


def _own(name: str) -> "Attacker":
    from unlora.audit.attackers import Attacker

    kind = import_own(name, "relearning: attacker")
    if not (isinstance(kind, type) and issubclass(kind, Attacker) and dataclasses.is_dataclass(kind)):
        raise InputError(f"relearning: attacker '{name}' must be a dataclass that subclasses unlora.audit.Attacker.")
    try:
        attacker = kind()  # pyright: ignore[reportCallIssue]  every field must have a default
    except (TypeError, ValueError) as error:
        raise InputError(f"relearning: attacker '{name}' cannot be made ({error}).") from None
    if attacker.learns_from not in LESSONS:
        raise InputError(
            f"relearning: attacker '{name}' learns from '{attacker.learns_from}'; one of {', '.join(LESSONS)}."
        )
    return attacker


def in_words(names: Sequence[str]) -> str:
    """Attackers in few words: those that differ in their learning rate alone stand together."""
    rates: dict[tuple[str, str], list[str]] = {}
    for name in names:
        kind, rate, lesson = name.split("_") if name in ATTACKERS else (name, "", "")
        rates.setdefault((kind, lesson), []).append(rate)
    return ", ".join(
        f"{kind} at {' '.join(found)} on {lesson}" if lesson else kind for (kind, lesson), found in rates.items()
    )
