"""What a membership attack shows, with its uncertainty: against chance, and against the retain-only model."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from unlora.errors import InputError
from unlora.metrics.intervals import Interval, bootstrap_interval
from unlora.metrics.membership import MemberScores, NonmemberScores, auc_of, true_positive_rate_of

MembershipVerdict = Literal[
    "more member-like than retain-only", "less member-like than retain-only", "like retain-only"
]
MembershipScores = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]
"""One model's scores of the members and of the non-members; higher is more member-like."""


@dataclass(frozen=True)
class MembershipResult:
    """One attack on one model."""

    auc: float
    """In [0, 1]; 0.5: no signal, 1: members stand out, far below 0.5: over-forgetting. See `membership_auc`."""
    auc_interval: Interval
    true_positive_rate: float
    """At 1 % false positives, in [0, 1]; high: some members are given away. See `true_positive_rate`."""
    true_positive_rate_interval: Interval
    member_count: int
    """Members with a score."""
    nonmember_count: int
    """Non-members with a score."""
    unscored_count: int
    """Examples of either kind left out because their score is NaN."""


@dataclass(frozen=True)
class DifferenceResult:
    """One attack on the unlearned model beside the same attack on the retain-only model."""

    difference: float
    """AUC of the unlearned minus AUC of the retain-only model, in [-1, 1]. 0 is the aim; above: the forget set still
    looks trained on; below: it looks less familiar than texts never seen (over-forgetting)."""
    interval: Interval
    verdict: MembershipVerdict
    """"like retain-only" when the interval holds 0: not told apart by so many examples, which is no proof."""
    member_count: int
    """Members that both models score."""
    nonmember_count: int
    """Non-members that both models score."""
    unscored_count: int
    """Examples of either kind left out because a model's score is NaN."""


def membership_test(
    member_scores: MemberScores,
    nonmember_scores: NonmemberScores,
    *,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> MembershipResult:
    """AUC and true-positive rate at 1 % false positives, with bootstrap intervals; NaN scores are left out and counted.

    Members and non-members are drawn again independently. Where the attack separates all examples the interval has no
    width, and with fewer than 100 non-members that of the true-positive rate is rough; of a single example both ends
    are NaN.

    Raises:
        InputError: no scored member or no scored non-member; confidence outside (0, 1).
    """
    members, nonmembers = (scores[~np.isnan(scores)] for scores in (member_scores, nonmember_scores))
    _check_counts("membership_test", members.size, nonmembers.size, needed=1)
    auc_interval, rate_interval = (
        bootstrap_interval((members, nonmembers), statistic, confidence=confidence, seed=seed, resamples=resamples)
        for statistic in (auc_of, true_positive_rate_of)
    )
    return MembershipResult(
        auc=float(auc_of(members, nonmembers)),
        auc_interval=auc_interval,
        true_positive_rate=float(true_positive_rate_of(members, nonmembers)),
        true_positive_rate_interval=rate_interval,
        member_count=members.size,
        nonmember_count=nonmembers.size,
        unscored_count=member_scores.size + nonmember_scores.size - members.size - nonmembers.size,
    )


def membership_difference(
    unlearned: MembershipScores,
    retain_only: MembershipScores,
    *,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> DifferenceResult:
    """Two-sided: does the attack find the forget set more, or less, member-like than the retain-only model does?

    Both models score the same examples in the same order, and a resample takes an example from both: what makes a
    text easy for every model cancels. The verdict says "more" or "less" when the whole interval is on one side of 0.

    Raises:
        InputError: the two models score different numbers of examples, fewer than two members or non-members have a
            score from both, or confidence is outside (0, 1).
    """
    unlearned_members, retain_only_members = _scored_by_both("members", unlearned[0], retain_only[0])
    unlearned_nonmembers, retain_only_nonmembers = _scored_by_both("non-members", unlearned[1], retain_only[1])
    member_count, nonmember_count = unlearned_members.size, unlearned_nonmembers.size
    _check_counts("membership_difference", member_count, nonmember_count, needed=2)

    def difference(
        member: Int[np.ndarray, "*resample member"], nonmember: Int[np.ndarray, "*resample nonmember"]
    ) -> Float[np.ndarray, "*resample"]:
        of_unlearned = auc_of(unlearned_members[member], unlearned_nonmembers[nonmember])
        return np.asarray(of_unlearned - auc_of(retain_only_members[member], retain_only_nonmembers[nonmember]))

    places = (np.arange(member_count), np.arange(nonmember_count))
    interval = bootstrap_interval(places, difference, confidence=confidence, seed=seed, resamples=resamples)
    return DifferenceResult(
        difference=float(difference(*places)),
        interval=interval,
        verdict=_verdict(interval),
        member_count=member_count,
        nonmember_count=nonmember_count,
        unscored_count=unlearned[0].size + unlearned[1].size - member_count - nonmember_count,
    )


def _verdict(interval: Interval) -> MembershipVerdict:
    if interval.low > 0:
        return "more member-like than retain-only"
    if interval.high < 0:
        return "less member-like than retain-only"
    return "like retain-only"


def _scored_by_both(kind: str, unlearned: np.ndarray, retain_only: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if unlearned.size != retain_only.size:
        raise InputError(
            f"membership_difference: {unlearned.size} {kind} of the unlearned model, {retain_only.size} of the "
            f"retain-only model; both must score the same examples in the same order."
        )
    scored = ~np.isnan(unlearned) & ~np.isnan(retain_only)
    return unlearned[scored], retain_only[scored]


def _check_counts(place: str, member_count: int, nonmember_count: int, *, needed: int) -> None:
    if min(member_count, nonmember_count) < needed:
        raise InputError(
            f"{place}: {member_count} scored members and {nonmember_count} scored non-members; needs {needed} of each."
        )
