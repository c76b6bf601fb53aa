"""Membership without non-members: the scores of the forget set itself, beside those that the control gives it."""

from collections.abc import Mapping

import numpy as np

from unlora.audit.attack import Estimate, Outcome
from unlora.audit.estimates import CONFIDENCE, FAR_RESAMPLES
from unlora.audit.membership_scores import MEMBERSHIP_SCORES, Scores
from unlora.audit.subject import Role
from unlora.metrics.intervals import bootstrap_interval
from unlora.metrics.membership import auc_of

AGAINST_CONTROL = ("loss", "min_k_plus_plus")
"""Scores of the forget set that are set beside the control's directly."""


def against_control(scores: Mapping[Role, Scores], member_count: int, *, seed: int) -> dict[str, Estimate]:
    """How well a score of the forget set alone tells the unlearned model from the control; needs no non-members.

    The AUC of the unlearned model's scores over the control's: 0.5, one cannot tell them apart; above, it finds the
    forget set more familiar than a model that never saw it; below, less. Examples are drawn again in both together.

    Returns:
        Attack -> AUC with an interval that holds for all of them together at 95 %; empty without a control.
    """
    if "retain_only" not in scores:
        return {}
    confidence = 1 - (1 - CONFIDENCE) / len(AGAINST_CONTROL)
    found: dict[str, Estimate] = {}
    for name in AGAINST_CONTROL:
        if any(name not in scores[role] for role in ("unlearned", "retain_only")):
            continue
        own, control = (scores[role][name][:member_count] for role in ("unlearned", "retain_only"))
        both = np.isfinite(own) & np.isfinite(control)
        own, control, unscored = own[both], control[both], int((~both).sum())
        if own.size < 2:
            found[name] = Estimate(None, unscored_count=unscored, note="fewer than two examples have a score")
            continue
        low, high = bootstrap_interval(
            (np.arange(own.size),),
            lambda drawn, own=own, control=control: np.asarray(auc_of(own[drawn], control[drawn])),
            confidence=confidence,
            seed=seed,
            resamples=FAR_RESAMPLES,
        )
        note = f"0.5 is the control itself; interval at {confidence:.1%}: Bonferroni over {len(AGAINST_CONTROL)} scores"
        found[name] = Estimate(float(auc_of(own, control)), low, high, own.size, unscored, note)
    return found


def judged_alone(beside: Mapping[str, Estimate]) -> tuple[Outcome, str, bool]:
    """Judge by the forget set's scores beside the control's alone.

    Returns:
        The outcome, the finding in plain words, and whether it is over-forgetting and nothing else.
    """
    told: list[str] = []
    more = less = False
    known = [name for name, one in beside.items() if one.low is not None]
    for name in known:
        one = beside[name]
        low, high = one.low or 0.0, one.high or 0.0
        if low <= 0.5 <= high:
            continue
        more, less = more or low > 0.5, less or high < 0.5
        kind = "over-forgotten" if high < 0.5 else "membership shows"
        told.append(
            f"{MEMBERSHIP_SCORES[name]} tells the forget set's answers from the retain-only model's with an AUC of "
            f"{one.value:.2f} ({low:.2f} to {high:.2f}): {kind}"
        )
    if told:
        return "fails", "; ".join(told), less and not more
    if not known:
        return "unclear", "fewer than two examples have a score in both models", False
    shown = " and ".join(f"{MEMBERSHIP_SCORES[name]} (AUC {beside[name].value:.2f})" for name in known)
    return "holds", f"by the forget set alone {shown} do not tell the model from the retain-only one", False
