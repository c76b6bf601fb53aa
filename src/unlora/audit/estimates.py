"""From numbers of single examples to one number with its interval. Unscored examples (NaN) are left out and counted."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from unlora.audit.attack import Estimate
from unlora.audit.subject import Role
from unlora.metrics.intervals import bootstrap_interval, mean_interval
from unlora.metrics.likelihood import ExampleValues

RESAMPLES, FAR_RESAMPLES = 2000, 4000
"""Of an interval of 95 %, and of one widened to hold for several at once, which needs the far tails."""
CONFIDENCE = 0.95
"""Of several intervals together: each is widened as Bonferroni has it."""

LEAST_KNOWN = 0.05
"""Where what the target knows is not this much above the control's, there is nothing that could come out."""


def mean_of_scored(values: ExampleValues) -> float:
    """Mean of the values that are numbers; NaN when there is none."""
    scored = values[np.isfinite(values)]
    return float(scored.mean()) if scored.size else math.nan


def mean_estimate(values: ExampleValues, *, seed: int, note: str = "") -> Estimate:
    """Mean with its 95 % bootstrap interval; no value when nothing was scored, no interval below two examples."""
    scored = values[np.isfinite(values)]
    unscored = values.size - scored.size
    if scored.size == 0:
        return Estimate(None, unscored_count=unscored, note=note or "nothing could be scored")
    if scored.size == 1:
        return Estimate(float(scored[0]), example_count=1, unscored_count=unscored, note=note)
    low, high = mean_interval(scored, seed=seed, resamples=RESAMPLES)
    return Estimate(float(scored.mean()), low, high, scored.size, unscored, note)


def ratio_estimate(numerator: ExampleValues, denominator: ExampleValues, *, seed: int) -> Estimate:
    """Ratio of two means over the same examples, with its 95 % bootstrap interval (percentile method).

    Whole examples are drawn, numerator and denominator together. The ratio of means and not the mean of ratios: an
    example that the denominator hardly knows must not decide.

    Args:
        numerator: of each example.
        denominator: of each example; its mean must be well above 0.
        seed: of the resamples.
    """
    both = np.isfinite(numerator) & np.isfinite(denominator)
    above, below = numerator[both], denominator[both]
    unscored = numerator.size - above.size
    if above.size == 0:
        return Estimate(None, unscored_count=unscored, note="nothing could be scored")
    if below.mean() == 0:
        return Estimate(None, example_count=above.size, unscored_count=unscored, note="nothing to compare with")
    value = float(above.mean() / below.mean())
    if above.size == 1:
        return Estimate(value, example_count=1, unscored_count=unscored)

    def ratio(drawn: Int[np.ndarray, "*resample example"]) -> Float[np.ndarray, "*resample"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return above[drawn].mean(axis=-1) / below[drawn].mean(axis=-1)

    low, high = bootstrap_interval((np.arange(above.size),), ratio, confidence=0.95, seed=seed, resamples=RESAMPLES)
    return Estimate(value, low, high, above.size, unscored)


def beyond_control(values: Mapping[Role, ExampleValues], untold: str, *, seed: int) -> Estimate:
    """Share of what the target knows beyond the control that the unlearned model gives away.

    (m_unlearned - m_control) / (m_target - m_control), m the mean over examples: 0 is the level of a model that never
    saw the forget set, 1 is the target's. Low is good; below 0 it says less than the control.

    Args:
        values: of each example, in every model there is.
        untold: what is not known without a control, for the note.
        seed: of the resamples.
    """
    if "retain_only" not in values:
        return Estimate(None, note=f"no control: {untold} is not known")
    shown, known = (values[role] - values["retain_only"] for role in ("unlearned", "target"))
    if mean_of_scored(known) < LEAST_KNOWN:
        return Estimate(None, note="the target knows hardly more than the control")
    return ratio_estimate(shown, known, seed=seed)
