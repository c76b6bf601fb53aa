"""How sure is a number that comes from so many examples? Intervals that hold the true value in 95 of 100 repetitions.

They speak of the choice of examples only: another training seed is another question.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest, bootstrap

from unlora.errors import InputError

_NUMBERS_AT_ONCE = 2_000_000
"""Drawn in one array of resamples: 16 MB."""


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
    return bootstrap_interval(
        (values,), partial(np.mean, axis=-1), confidence=confidence, seed=seed, resamples=resamples
    )


def proportion_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Exact (Clopper-Pearson) interval of a share, in [0, 1]: never too narrow, and (0, high) when nothing succeeded.

    Source: Clopper and Pearson 1934.

    Raises:
        InputError: no trial, or successes outside 0..trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise InputError(f"proportion_interval: {successes} of {trials}; needs 0 <= successes <= trials, trials >= 1.")
    _check_confidence(confidence)
    result = binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="exact")
    return Interval(float(result.low), float(result.high))


def bootstrap_interval(
    samples: tuple[np.ndarray, ...],
    statistic: Callable[..., Any],
    *,
    confidence: float,
    seed: int,
    resamples: int,
) -> Interval:
    """Percentile interval of a statistic along the last axis, when each sample is drawn again by itself.

    Both ends are NaN when a sample has fewer than two entries.

    Raises:
        InputError: confidence is no share.
    """
    _check_confidence(confidence)
    if min(sample.size for sample in samples) < 2:
        return Interval(np.nan, np.nan)
    result: Any = bootstrap(
        samples,
        lambda *drawn, axis: statistic(*drawn),  # scipy always asks for the last axis
        vectorized=True,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        batch=max(1, _NUMBERS_AT_ONCE // sum(sample.size for sample in samples)),
        rng=np.random.default_rng(seed),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1 (such as 0.95), found {confidence}.")
