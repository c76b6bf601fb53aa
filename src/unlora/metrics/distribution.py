"""Is the unlearned model distributed like the one that never saw the forget set?"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import ks_2samp

from unlora.errors import InputError


@dataclass(frozen=True)
class KSResult:
    """A two-sample Kolmogorov-Smirnov test."""

    p_value: float
    """In [0, 1]; high: the samples cannot be told apart."""
    log10_p: float
    """Its decimal logarithm, <= 0; minus infinity when the p-value underflows."""
    statistic: float
    """Largest distance of the two empirical distribution functions, in [0, 1]."""
    smallest_p: float
    """The p-value of samples of this size that do not overlap at all: no result can be lower."""


FEWEST_QUESTIONS = 4
"""Below this many on either side even samples that do not overlap are no sign of a difference at the 5 % level."""


def forget_quality(
    unlearned_ratios: Float[np.ndarray, " unlearned"], retain_only_ratios: Float[np.ndarray, " retain_only"]
) -> KSResult:
    """TOFU's forget quality: the p-value of a KS test between truth ratios on the forget set. High is good.

    Only the order of the values counts, so R and 1/R give the same result; the aggregation of `truth_ratio` must be
    the same on both sides. A high p-value from few examples says little: the test sees what the counts let it see, and
    below 4 on either side both p-values are NaN.
    Source: Maini et al. 2024, TOFU (arXiv 2401.06121).

    Raises:
        InputError: a sample is empty or holds NaN (leave unscored examples out and count them).
    """
    for name, ratios in (("unlearned_ratios", unlearned_ratios), ("retain_only_ratios", retain_only_ratios)):
        if ratios.size == 0 or np.isnan(ratios).any():
            raise InputError(f"{name}: must hold at least one number and no NaN; leave unscored examples out.")
    result: Any = ks_2samp(unlearned_ratios, retain_only_ratios)  # scipy's own annotation hides the fields
    p_value = float(result.pvalue)
    sizes = unlearned_ratios.size, retain_only_ratios.size
    smallest = 2.0 / math.comb(sum(sizes), min(sizes))
    if min(sizes) < FEWEST_QUESTIONS:
        return KSResult(math.nan, math.nan, float(result.statistic), min(smallest, 1.0))
    return KSResult(p_value, math.log10(p_value) if p_value > 0 else -math.inf, float(result.statistic), smallest)
