"""Many numbers into one."""

import math
from collections.abc import Mapping, Sequence

from unlora.errors import InputError, nearest

MODEL_UTILITY_PARTS = tuple(
    f"{examples}_{score}"
    for examples in ("retain", "real_authors", "world_facts")
    for score in ("probability", "rouge_l_recall", "truth_ratio")
)
"""The nine parts of TOFU's model utility; each in [0, 1], high is good."""


def harmonic_mean(values: Sequence[float]) -> float:
    """Return n / sum(1/v): pulled to the lowest values, 0 as soon as one is 0; NaN when there is no value.

    Raises:
        InputError: a negative value.
    """
    if any(value < 0 for value in values):
        raise InputError(f"harmonic_mean: values must be >= 0, found {min(values)}.")
    if not values:
        return math.nan
    return 0.0 if 0 in values else len(values) / math.fsum(1 / value for value in values)


def model_utility(parts: Mapping[str, float]) -> float:
    """TOFU's model utility: the harmonic mean of nine numbers off the forget set, in [0, 1]. High is good.

    The truth-ratio parts are means of `truth_ratio_retain_score`; say which aggregation they come from.
    Source: Maini et al. 2024, TOFU (arXiv 2401.06121).

    Raises:
        InputError: a part is missing, NaN or unknown; a utility of fewer parts would be another metric.
    """
    for name in parts:
        if name not in MODEL_UTILITY_PARTS:
            raise InputError(f"model_utility: unknown part '{name}'.{nearest(name, MODEL_UTILITY_PARTS)}")
    missing = [name for name in MODEL_UTILITY_PARTS if math.isnan(parts.get(name, math.nan))]
    if missing:
        raise InputError(f"model_utility: needs nine parts, missing {', '.join(missing)}.")
    return harmonic_mean([parts[name] for name in MODEL_UTILITY_PARTS])
