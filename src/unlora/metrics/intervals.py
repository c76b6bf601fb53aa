"""How sure is a number that comes from so many examples? Intervals that hold the true value in 95 of 100 repetitions.

They speak of the choice of examples only: another training seed is another question.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest, bootstrap

from unlora.errors import InputError


class Interval(NamedTuple):
    """Both ends of a confidence interval, in the unit of the number it belongs to; NaN where none can be given."""

    low: float
    high: float


def mean_interval(
    values: Float[np.ndarray, " example"], *, confidence: float = 0.95, seed: int = 0, resamples: int = 2000
) -> Interval:
    """Bootstrap interval of a mean over examples, by the percentile method, as in MUSE.

    Percentile and not BCa: it stays inside the range of the values and is defined when all of them are equal, which
    is common after unlearning (every ROUGE 0). It then has no width, and below some twenty examples it is too narrow:
    give the count beside it. One value has no interval: both ends are NaN.
    Source: Efron and Tibshirani 1993, chapter 13.

    Raises:
        InputError: no value, or NaN among them (leave unscored examples out and count them).
    """
    if values.size == 0 or np.isnan(values).any():
        raise InputError("mean_interval: values must hold at least one number and no NaN; leave unscored examples out.")
    _check_confidence("mean_interval", confidence)
    if values.size == 1:
        return Interval(np.nan, np.nan)
    result: Any = bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        batch=batch_of_resamples(values.size),
        rng=np.random.default_rng(seed),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def proportion_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Exact (Clopper-Pearson) interval of a share, in [0, 1]: never too narrow, and (0, high) when nothing succeeded.

    Source: Clopper and Pearson 1934.

    Raises:
        InputError: no trial, or successes outside 0..trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise InputError(f"proportion_interval: {successes} of {trials}; needs 0 <= successes <= trials, trials >= 1.")
    _check_confidence("proportion_interval", confidence)
    result = binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="exact")
    return Interval(float(result.low), float(result.high))


def batch_of_resamples(example_count: int) -> int:
    """How many resamples to draw at once: few enough that one array of them stays near 16 MB."""
    return max(1, 2_000_000 // example_count)


def _check_confidence(place: str, confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"{place}: confidence must lie between 0 and 1 (such as 0.95), found {confidence}.")
