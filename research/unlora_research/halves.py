"""Settings are chosen on one half of the questions and reported on the other."""

from typing import NamedTuple

from unlora.suites.scores import ModelScores
from unlora.suites.tofu.metrics import measure_tofu

REPORTED = ("forget_probability", "retain_probability", "forget_quality_log10", "extraction_strength")


class Known(NamedTuple):
    """What a model knows: mean probability of the answers."""

    forget_probability: float
    retain_probability: float
    """Of held-out retain questions."""


class HalfResult(NamedTuple):
    """One model on one half of the forget and of the held-out retain questions."""

    forget_probability: float
    retain_probability: float
    forget_quality_log10: float
    extraction_strength: float


def half(scores: ModelScores, which: int) -> ModelScores:
    """Every other question of every set: 0 is the validation half, 1 the test half."""
    return ModelScores({name: examples[which::2] for name, examples in scores.sets.items()}, scores.protocol)


def half_result(scores: ModelScores, retain_only: ModelScores, which: int) -> HalfResult:
    """Measure one half; NaN where a metric cannot be computed."""
    measured = measure_tofu(half(scores, which), retain_only=half(retain_only, which))
    values = [measured[name].value for name in REPORTED]
    return HalfResult(*(float("nan") if value is None else value for value in values))


def balance(unlearned: HalfResult | Known, target: HalfResult | Known, retain_only: HalfResult | Known) -> float:
    """Harmonic mean of how far the forget probability has come to the retain-only model's, and of what is kept.

    Both lie between 0 and 1, 1 is best: (target - unlearned) / (target - retain-only), cut off at 1 because below the
    retain-only model there is nothing left to gain; and the held-out retain probability over the target's.
    """
    way = target.forget_probability - retain_only.forget_probability
    forgotten = min(max((target.forget_probability - unlearned.forget_probability) / way, 0.0), 1.0) if way > 0 else 0.0
    kept = min(max(unlearned.retain_probability / target.retain_probability, 0.0), 1.0)
    return 2 * forgotten * kept / (forgotten + kept) if forgotten + kept > 0 else 0.0
