"""Membership by the forget set alone: one model's scores over the other's."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.audit.subjects import bench_for, never_taught
from unlora.audit.membership import Membership
from unlora.audit.membership_control import against_control, judged_alone
from unlora.audit.subject import AuditSubject


def scores(own: np.ndarray, control: np.ndarray) -> dict:
    return {
        role: {"loss": values, "min_k_plus_plus": control}
        for role, values in (("unlearned", own), ("retain_only", control))
    }


def test_auc_is_the_share_of_pairs_and_the_same_model_cannot_be_told() -> None:
    control = np.random.default_rng(0).normal(size=30)
    found = against_control(scores(control + 0.7, control), 30, seed=0)
    pairs = (control[:, None] + 0.7 > control[None, :]).mean()
    assert found["loss"].value == pytest.approx(pairs)
    assert found["loss"].low > 0.5  # type: ignore[operator]
    assert found["min_k_plus_plus"].value == 0.5
    assert judged_alone(found)[0] == "fails"
    assert not judged_alone(found)[2]
    outcome, sentence, damage = judged_alone(against_control(scores(control - 0.7, control), 30, seed=0))
    assert (outcome, damage) == ("fails", True)
    assert "LOSS" in sentence
    assert "over-forgotten" in sentence
    same = against_control(scores(control, control), 30, seed=0)
    assert judged_alone(same)[0] == "holds"
    assert against_control({"unlearned": {"loss": control}}, 30, seed=0) == {}


def test_without_a_holdout_the_control_is_what_there_is(
    subject: AuditSubject, subject_folder: Path, tmp_path: Path
) -> None:
    alone = dataclasses.replace(never_taught(subject, subject_folder), holdout=None, reference=None)
    result = Membership().run(bench_for(alone, tmp_path))
    assert result.outcome == "holds"
    assert result.estimates["loss_auc_against_control"].value == 0.5
    assert "no holdout" in result.tested
