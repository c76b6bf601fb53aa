"""Membership: does the model still give away that it was trained on the forget set, or that it was made to forget it?

Two-sided, as MUSE asks (arXiv 2407.06460): an AUC above the retain-only model's says that the knowledge shows, one
below it that the forgotten records look less familiar than records never seen, which gives them away as well. Several
attacks are tried, so the interval of each difference is widened (Bonferroni) until all of them together hold at 95 %.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unlora.audit.attack import Attack, AttackResult, Estimate, Outcome
from unlora.audit.bench import Workbench
from unlora.audit.cost import SECONDS_PER_GIGABYTE, Cost
from unlora.audit.estimates import CONFIDENCE, FAR_RESAMPLES
from unlora.audit.membership_control import against_control, judged_alone
from unlora.audit.membership_scores import (
    MEMBERSHIP_SCORES,
    Scores,
    Suspects,
    pieces,
    score_suspects,
    takes_gradient_norms,
)
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.data.same import same_examples
from unlora.metrics.membership_verdict import (
    DifferenceResult,
    MembershipScores,
    membership_difference,
    membership_test,
)
from unlora.models.wrapping import unwrap


@dataclass(frozen=True)
class Comparison:
    """Every attack on the unlearned model beside the same attack on the control."""

    confidence: float
    """Of each attack alone."""
    differences: Mapping[str, DifferenceResult]
    """Attack -> AUC of the unlearned model minus the control's; attacks that too few examples have a score for lack."""

    @property
    def more(self) -> list[str]:
        """Attacks to which the forget set looks more member-like than it should, furthest off first."""
        return self._ranked("more member-like than retain-only")

    @property
    def less(self) -> list[str]:
        """Attacks to which it looks less so, furthest off first."""
        return self._ranked("less member-like than retain-only")

    @property
    def largest(self) -> str:
        """The attack with the largest difference, in either direction."""
        return max(self.differences, key=lambda name: abs(self.differences[name].difference))

    def _ranked(self, verdict: str) -> list[str]:
        names = [name for name, found in self.differences.items() if found.verdict == verdict]
        return sorted(names, key=lambda name: -abs(self.differences[name].difference))


class Membership(Attack):
    """Up to six attacks on the forget set against records that no model ever saw."""

    name = "membership"
    question = "Can it be told that the model was trained on the forget set?"

    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        if subject.holdout is None:
            if subject.retain_only is not None and len(subject.forget) >= 2:
                return None  # the control's scores of the forget set itself are what there is to compare with
            return "needs records like the forget set that no model ever saw: give --holdout FILE"
        if min(len(subject.forget), len(subject.holdout)) < 2:
            return "needs two forget examples and two holdout records at least"
        known = (*subject.forget, *(subject.retain or ()))
        for example, match in zip(subject.holdout, same_examples(subject.holdout.examples, known), strict=True):
            if match is not None:
                return f"{example.source}: stands in the forget or retain set too; a holdout is new to every model"
        return None

    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        suspects = Suspects.of(subject, settings)
        tokens = sum(len(example.input_ids) for example in subject.tokeniser.encode_set(suspects.examples))
        backward = len(subject.roles) if takes_gradient_norms(subject, settings) else 0
        loading = unwrap(subject.model).get_memory_footprint() / 1e9 * SECONDS_PER_GIGABYTE
        return Cost(
            forward_tokens=tokens * (pieces(subject, settings) - backward),
            training_tokens=tokens * backward,
            fixed_seconds=loading if subject.reference is not None else 0.0,
        )

    def run(self, bench: Workbench) -> AttackResult:
        suspects = Suspects.of(bench.subject, bench.settings)
        scores = score_suspects(bench, suspects)
        comparison = compare_membership(scores, len(suspects.members), seed=bench.settings.seed)
        estimates = _estimates(scores, len(suspects.members), comparison, bench.settings.seed)
        beside = against_control(scores, len(suspects.members), seed=bench.settings.seed)
        estimates |= {f"{name}_auc_against_control": estimate for name, estimate in beside.items()}
        if comparison is None and beside:
            outcome, sentence, damage = judged_alone(beside)
            tested = f"{len(suspects.members)} members, no holdout: {len(beside)} scores beside the control's"
            kept = tuple(_records(suspects, scores))
            return AttackResult(outcome, sentence, estimates, tested, records=kept, damage=damage)
        outcome, sentence = _finding(comparison, estimates)
        return AttackResult(
            outcome,
            sentence,
            damage=comparison is not None and not comparison.more and bool(comparison.less),
            estimates=estimates,
            tested=_tested(suspects, scores["unlearned"], comparison),
            records=tuple(_records(suspects, scores)),
        )


def compare_membership(scores: Mapping[Role, Scores], member_count: int, *, seed: int) -> Comparison | None:
    """Set every attack's AUC on the unlearned model beside that on the control, paired over examples.

    Args:
        scores: of every model, members first.
        member_count: how many of the examples are members.
        seed: of the bootstrap intervals.

    Returns:
        None without a control, or when no attack has two scored examples of each kind.
    """
    if "retain_only" not in scores:
        return None
    unlearned, control = (
        {name: _split(values, member_count) for name, values in scores[role].items()}
        for role in ("unlearned", "retain_only")
    )
    usable = [name for name in unlearned if _counts(unlearned[name], control[name]) >= 2]
    if not usable:
        return None
    confidence = 1 - (1 - CONFIDENCE) / len(usable)
    differences = {
        name: membership_difference(
            unlearned[name], control[name], seed=seed, resamples=FAR_RESAMPLES, confidence=confidence
        )
        for name in usable
    }
    return Comparison(confidence, differences)


def _split(values: np.ndarray, member_count: int) -> MembershipScores:
    return values[:member_count], values[member_count:]


def _counts(*models: MembershipScores) -> int:
    """How many examples of the rarer kind all these models have a score for."""
    return min(int(np.isfinite(np.array(kind)).all(axis=0).sum()) for kind in zip(*models, strict=True))


def _finding(comparison: Comparison | None, estimates: Mapping[str, Estimate]) -> tuple[Outcome, str]:
    """The outcome, and the finding in plain words."""
    if comparison is None:
        best = max(MEMBERSHIP_SCORES, key=lambda name: estimates[f"{name}_auc_unlearned"].value or -math.inf)
        value = estimates[f"{best}_auc_unlearned"].value
        found = "no attack gave a score" if value is None else f"{MEMBERSHIP_SCORES[best]} has an AUC of {value:.2f}"
        return "unclear", f"{found}, and there is no control that says how much of it the records themselves explain"

    def beside(name: str) -> str:
        unlearned, control = (estimates[f"{name}_auc_{role}"].value for role in ("unlearned", "retain_only"))
        return f"{MEMBERSHIP_SCORES[name]} has an AUC of {unlearned:.2f} against the retain-only model's {control:.2f}"

    parts = [f"{beside(comparison.more[0])}: membership shows"] if comparison.more else []
    if comparison.less:
        parts.append(f"{beside(comparison.less[0])}: over-forgotten")
    if parts:
        return "fails", "; ".join(parts)
    interval = comparison.differences[comparison.largest].interval
    return "holds", (
        f"no attack of {len(comparison.differences)} tells the model from the retain-only one; at most "
        f"{beside(comparison.largest)} (difference between {interval.low:+.2f} and {interval.high:+.2f})"
    )


def _estimates(
    scores: Mapping[Role, Scores], member_count: int, comparison: Comparison | None, seed: int
) -> dict[str, Estimate]:
    estimates: dict[str, Estimate] = {}
    for name in MEMBERSHIP_SCORES:
        for role, found in scores.items():
            if name in found:
                estimates |= _of_one_model(name, role, _split(found[name], member_count), seed)
            elif name == "reference":
                note = "no reference model: give --set membership.reference=MODEL"
                estimates[f"{name}_auc_{role}"] = Estimate(None, note=note)
            else:
                estimates[f"{name}_auc_{role}"] = Estimate(None, note="switched off")
        if comparison is not None and name in comparison.differences:
            estimates[f"{name}_auc_difference"] = _difference(comparison, name)
    return estimates


def _of_one_model(name: str, role: Role, scores: MembershipScores, seed: int) -> dict[str, Estimate]:
    """AUC and true-positive rate of one attack on one model, each with its 95 % interval."""
    places = (f"{name}_auc_{role}", f"{name}_tpr_at_1_fpr_{role}")
    if _counts(scores) < 1:
        unscored = sum(int(np.isnan(kind).sum()) for kind in scores)
        return dict.fromkeys(places, Estimate(None, unscored_count=unscored, note="no example of a kind has a score"))
    found = membership_test(*scores, seed=seed)
    count = found.member_count + found.nonmember_count
    note = "" if found.nonmember_count >= 100 else "below 100 non-members: none may score as high"
    numbers = (
        (found.auc, found.auc_interval, ""),
        (found.true_positive_rate, found.true_positive_rate_interval, note),
    )
    return {
        place: Estimate(value, _known(interval.low), _known(interval.high), count, found.unscored_count, note)
        for place, (value, interval, note) in zip(places, numbers, strict=True)
    }


def _difference(comparison: Comparison, name: str) -> Estimate:
    found = comparison.differences[name]
    return Estimate(
        found.difference,
        _known(found.interval.low),
        _known(found.interval.high),
        found.member_count + found.nonmember_count,
        found.unscored_count,
        f"unlearned - retain-only; interval at {comparison.confidence:.1%}: {_bonferroni(comparison)}",
    )


def _known(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None


def _bonferroni(comparison: Comparison) -> str:
    return f"Bonferroni over {len(comparison.differences)} attacks"


def _tested(suspects: Suspects, scores: Scores, comparison: Comparison | None) -> str:
    text = f"{len(suspects.members)} members, {len(suspects.nonmembers)} non-members, {len(scores)} attacks"
    if comparison is None:
        return text
    return f"{text}, differences at {comparison.confidence:.1%} each ({_bonferroni(comparison)})"


def _records(suspects: Suspects, scores: Mapping[Role, Scores]) -> list[dict[str, Any]]:
    """Every example in every model with every score."""
    return [
        {
            "model": role,
            "member": place < len(suspects.members),
            "source": example.source,
            "question": example.prompt,
            "completion": example.completion,
            **{name: float(values[place]) for name, values in found.items()},
        }
        for role, found in scores.items()
        for place, example in enumerate(suspects.examples)
    ]
