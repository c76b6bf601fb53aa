"""How far a run was to forget, and how far it did. No torch here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

WHOSE = {
    "control": "of the retain-only model",
    "before": "of the model before fine-tuning",
    "number": "asked for",
}

LEAST_TAKEN = 0.1
"""Share of a probability below which what was taken away is next to nothing."""
KNOWN = 0.01
"""Probability from which on there is anything to take."""


def hardly_forgotten(before: float, now: float) -> bool:
    """Whether less than a tenth of a forget probability was taken away, where there was any to take."""
    return before > KNOWN and before - now < LEAST_TAKEN * before


STRENGTHENED = 1.2
"""Strength of an adapter from which on more training would have kept clearly more (docs/results/depth.md)."""

NO_LEVEL = "none was aimed at; the adapter is as training left it"


@dataclass(frozen=True)
class LevelSource:
    """Whose forget probability is aimed at."""

    kind: Literal["control", "before", "number"]
    name: str
    base: str | None = None
    """Of a model that is an adapter, when not where its own config says."""


@dataclass(frozen=True)
class Level:
    """What is aimed at: the mean over the forget examples of the geometric mean of their token probabilities."""

    source: LevelSource
    probability: float
    low: float
    high: float
    """95 % over the examples; both ends are the probability itself where it was asked for or is of one example."""


@dataclass(frozen=True)
class Settled:
    """Where the adapter ended beside its level."""

    level: Level
    as_trained: float
    """Forget probability when training ended."""
    as_left: float
    """The same of the adapter that was saved."""
    strength: float
    """What its update was multiplied with."""
    stopped: int | None = None
    """The step at which training stopped because the level was reached; None where it went on to its end."""

    @property
    def is_short(self) -> bool:
        """Whether more is left than a model that never knew gives."""
        return self.as_left > max(self.level.high, 1.05 * self.level.probability)

    def sentence(self) -> str:
        """What the level is, and how it was reached, in one line."""
        level = self.level
        interval = f" [{level.low:.3f}, {level.high:.3f}]" if level.low != level.high else ""
        stopped = f", stopped at step {self.stopped}," if self.stopped is not None else ""
        line = (
            f"forget probability {level.probability:.3f}{interval} {WHOSE[level.source.kind]}; training{stopped} left "
            f"{self.as_trained:.3f}, the adapter at {self.strength:.2f} of its strength {self.as_left:.3f}"
        )
        longer = "train longer (--set training.epochs=N)"
        if self.is_short:
            return f"{line}; short of the level: {longer}"
        if self.strength > STRENGTHENED:
            return f"{line}; strengthened far past its training, which takes from what is kept: {longer}"
        return line

    def to_json(self) -> dict[str, Any]:
        """For record.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Settled":
        """Read what `to_json` gave."""
        level = record["level"]
        return cls(**{**record, "level": Level(**{**level, "source": LevelSource(**level["source"])})})
