"""The attacks by name, in the order they are run: what only asks comes before what changes weights."""

from typing import Literal, get_args

AttackName = Literal[
    "level",
    "membership",
    "wording",
    "context",
    "sampling",
    "fluency",
    "neighbours",
    "quantisation",
    "relearning",
]

ATTACK_NAMES: tuple[AttackName, ...] = get_args(AttackName)
