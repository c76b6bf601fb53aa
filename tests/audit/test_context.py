"""Answers among other facts: what is scored, and what counts."""

import dataclasses
from pathlib import Path

import pytest

from tests.audit.subjects import bench_for, never_unlearned
from unlora.audit.context import SHOTS, Context
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject
from unlora.models.score import score_completions


def test_a_model_that_knows_says_it_and_the_unlearned_less(
    subject: AuditSubject, subject_folder: Path, tmp_path: Path
) -> None:
    knows = Context().run(bench_for(never_unlearned(subject, subject_folder), tmp_path / "one"))
    assert knows.outcome == "fails"
    for probe in ("few_shot", "combined"):
        assert knows.estimates[f"{probe}_leak"].value == pytest.approx(1, abs=1e-3)
    forgot = Context().run(bench_for(subject, tmp_path / "two"))
    assert forgot.estimates["few_shot_leak"].value < 0.95  # type: ignore[operator]
    assert len(forgot.records) == 2 * 3 * len(subject.forget)


def test_only_the_answer_to_the_question_is_scored(subject: AuditSubject, tmp_path: Path) -> None:
    result = Context().run(bench_for(subject, tmp_path))
    tokens = subject.tokeniser.encode_set(subject.forget)
    # With as many others as there are shots, all of them stand before the question, in an order that is drawn.
    assert SHOTS == len(tokens) - 1
    found = [one["probability"] for one in result.records if one["probe"] == "few_shot" and one["model"] == "target"]
    with subject.acting_as("target") as model:
        expected = set()
        for first, second, third in ((1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)):
            ids = sum((tokens[place].input_ids for place in (first, second, third)), ()) + tokens[0].input_ids
            start = len(ids) - len(tokens[0].input_ids) + tokens[0].prompt_length
            expected.add(round(score_completions(model, [(ids, start)], pad_token_id=1)[0].probability, 4))
    assert round(found[0], 4) in expected


def test_without_retain_records_there_is_no_combined_prompt_and_without_a_control_nothing_holds(
    subject: AuditSubject, tmp_path: Path
) -> None:
    alone = dataclasses.replace(subject, retain=None, retain_only=None)
    result = Context().run(bench_for(alone, tmp_path))
    assert result.outcome == "unclear"
    assert not any(name.startswith("combined") for name in result.estimates)
    assert "two forget examples" in (
        Context().lacks(dataclasses.replace(subject, forget=subject.forget.select(1)), AuditSettings()) or ""
    )
