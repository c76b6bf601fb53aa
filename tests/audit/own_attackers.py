"""Attackers of a user's own, quick enough for a tiny model."""

from dataclasses import dataclass

from unlora.audit.attackers import FullAttacker, LessonName, LoraAttacker


@dataclass(frozen=True)
class Few(LoraAttacker):
    learning_rate: float = 5e-3
    rank: int = 4


@dataclass(frozen=True)
class All(Few):
    learns_from: LessonName = "full"


@dataclass(frozen=True)
class Unrelated(Few):
    learns_from: LessonName = "unrelated"


@dataclass(frozen=True)
class EveryWeight(FullAttacker):
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Ruinous(Few):
    learning_rate: float = 1e30


@dataclass(frozen=True)
class NoRate(LoraAttacker):
    """Cannot be made: its learning rate has no default."""


FEW, ALL, UNRELATED, EVERY_WEIGHT, RUINOUS = (
    f"{__name__}:{kind.__name__}" for kind in (Few, All, Unrelated, EveryWeight, Ruinous)
)
