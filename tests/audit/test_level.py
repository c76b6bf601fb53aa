"""The level of a model that never knew: within, above, and below it."""

import dataclasses
from pathlib import Path

import pytest

from tests.audit.subjects import bench_for, never_unlearned
from unlora.audit.attack import AttackResult
from unlora.audit.level import ControlLevel
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject
from unlora.audit.verdict import verdict


def of_levels(subject: AuditSubject, cache: Path, unlearned: list[float], control: list[float]) -> AttackResult:
    """The attack on models with these forget probabilities."""
    bench = bench_for(subject, cache)
    for role, values in (("target", [0.9] * 4), ("unlearned", unlearned), ("retain_only", control)):
        bench.once("forget-likelihoods", role, {}, lambda values=values: {"probability": values})  # type: ignore[arg-type]
    return ControlLevel().run(bench)


@pytest.mark.parametrize(
    ("unlearned", "outcome", "damage", "words"),
    [
        ([0.2, 0.3, 0.25, 0.25], "holds", False, "the level of a model that never knew"),
        ([0.01] * 4, "fails", True, "over-forgotten"),
        ([0.6] * 4, "fails", False, "not down to the level"),
    ],
)
def test_level_is_within_the_controls_interval_or_not(
    subject: AuditSubject, tmp_path: Path, unlearned: list[float], outcome: str, damage: bool, words: str
) -> None:
    result = of_levels(subject, tmp_path, unlearned, [0.2, 0.3, 0.2, 0.3])
    assert (result.outcome, result.damage) == (outcome, damage)
    assert words in result.sentence
    assert result.estimates["difference"].value == pytest.approx(sum(unlearned) / 4 - 0.25)
    text = verdict({"level": result})
    begin = {"holds": "No return", "fails": "More was lost than should be" if damage else "Not forgotten"}[outcome]
    assert text.startswith(begin)
    if outcome == "fails":
        assert words in text


def test_a_model_that_knows_is_above_and_without_a_control_nothing_is_said(
    subject: AuditSubject, subject_folder: Path, tmp_path: Path
) -> None:
    result = ControlLevel().run(bench_for(never_unlearned(subject, subject_folder), tmp_path))
    assert (result.outcome, result.damage) == ("fails", False)
    assert "--retain-only" in (
        ControlLevel().lacks(dataclasses.replace(subject, retain_only=None), AuditSettings()) or ""
    )
