"""Does the forgetting last? A metric of the forgotten knowledge before and after an attack.

Every m is one model's value of such a metric, higher meaning more knowledge (probability, extraction strength, exact
memorisation, KnowMem). Turn the others round first: 1 - m.
"""

import math

from unlora.errors import InputError


def recovery_ratio(after: float, unlearned: float, target: float) -> float:
    """(m_after - m_unlearned) / (m_target - m_unlearned): how much of the lost knowledge an attack brings back.

    0: nothing; 1: all that the target knew; below 0: the attack took away more; above 1: more than the target knew.
    Low is good, beside the same number for the retain-only model (it learns too). The metric's direction cancels.

    Returns:
        The ratio; NaN when target and unlearned model score the same (nothing was lost) or a value is NaN.
    """
    lost = target - unlearned
    return (after - unlearned) / lost if lost != 0 else math.nan


def relearning_robustness(
    unlearned_before: float, unlearned_after: float, retain_only_before: float, retain_only_after: float
) -> float:
    """R = min(gain of the retain-only model / gain of the unlearned model, 1) from the same relearning, in [0, 1].

    High is good. 1: the unlearned model learns no faster than one that never knew; 0: knowledge comes back that the
    control does not pick up. OpenUnlearning's R, which rates metrics with it; its formula turns negative when the two
    models move in opposite directions. Here the case decides:

        gain unlearned   gain retain-only   R
        > 0              > 0                min(retain-only / unlearned, 1)
        > 0              <= 0               0
        <= 0             > 0                1: nothing comes back, though there was something to learn
        <= 0             <= 0               NaN: the attack taught neither, so it tested nothing

    Source: OpenUnlearning (arXiv 2506.12618), section 4, after one epoch on the forget set.

    Returns:
        R; NaN also when a value is NaN.
    """
    unlearned_gain, retain_only_gain = unlearned_after - unlearned_before, retain_only_after - retain_only_before
    if math.isnan(unlearned_gain) or math.isnan(retain_only_gain):
        return math.nan
    if unlearned_gain <= 0:
        return 1.0 if retain_only_gain > 0 else math.nan
    return min(max(retain_only_gain / unlearned_gain, 0.0), 1.0)


def quantisation_robustness(unlearned_before: float, unlearned_after: float) -> float:
    """Q = min(m_before / m_after, 1) of one model at full precision and quantised, in [0, 1].

    High is good. 1: quantising brings nothing back (a metric that falls counts as 1: look at it by itself, the model
    may be broken); near 0: most of what the quantised model shows was hidden. Nothing before and after gives 1,
    nothing before and something after 0. Written with a metric of forgetting, higher is better, the fraction is the
    other way up.
    Source: OpenUnlearning (arXiv 2506.12618), section 4, for 4-bit NF4.

    Returns:
        Q; NaN when a value is NaN.

    Raises:
        InputError: a negative value; a ratio of negative numbers says nothing.
    """
    if unlearned_before < 0 or unlearned_after < 0:
        lowest = min(unlearned_before, unlearned_after)
        raise InputError(f"quantisation_robustness: metrics must be >= 0 (more knowledge is higher), found {lowest}.")
    if math.isnan(unlearned_before) or math.isnan(unlearned_after):
        return math.nan
    return 1.0 if unlearned_after <= unlearned_before else unlearned_before / unlearned_after
