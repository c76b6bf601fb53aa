"""What is written about a model: measurements, and how they were made. No torch here."""

import math
from dataclasses import dataclass
from typing import Any

NO_VALUE = "–"
"""In place of a number that there is not."""


@dataclass(frozen=True)
class Measurement:
    """One metric over examples.

    An example that could not be scored is counted in `unscored_count`, never scored zero; `value` is None when no
    example could be scored.
    """

    value: float | None
    """The metric; None means it could not be computed (see `note`)."""
    standard_error: float | None
    """Standard error of a mean over examples; None where the metric is not a mean."""
    example_count: int
    """Examples that were scored."""
    higher_is_better: bool | None
    """Direction for the *unlearned* model; None when two-sided (compare with the retain-only model)."""
    unscored_count: int = 0
    """Examples that gave no score."""
    note: str = ""
    """Why a value is missing, or how to read it."""

    def to_json(self) -> dict[str, Any]:
        """The contract's form; a NaN becomes null."""
        return {
            "value": finite_or_none(self.value),
            "standard_error": finite_or_none(self.standard_error),
            "example_count": self.example_count,
            "higher_is_better": self.higher_is_better,
            "unscored_count": self.unscored_count,
            **({"note": self.note} if self.note else {}),
        }


def mean_measurement(scores: list[float], *, higher_is_better: bool | None, note: str = "") -> Measurement:
    """Mean and standard error over the scores that are numbers; NaN is unscored and counted."""
    scored = [score for score in scores if not math.isnan(score)]
    unscored = len(scores) - len(scored)
    if not scored:
        return Measurement(None, None, 0, higher_is_better, unscored, note or "no example could be scored")
    mean = math.fsum(scored) / len(scored)
    error = None
    if len(scored) > 1:
        variance = math.fsum((score - mean) ** 2 for score in scored) / (len(scored) - 1)
        error = math.sqrt(variance / len(scored))
    return Measurement(mean, error, len(scored), higher_is_better, unscored, note)


def finite_or_none(value: float | None) -> float | None:
    """The value, or None where it is no number, as JSON has it."""
    return value if value is not None and math.isfinite(value) else None
