"""Sampled answers: leak@k against a plain loop over subsets, and verdicts against a control."""

import dataclasses
import json
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from tests.audit.subjects import bench_for, never_taught, never_unlearned
from unlora.audit import sampling
from unlora.audit.attack import AttackResult
from unlora.audit.sampling import Drawn, Sampling
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject
from unlora.data.records import Example, ExampleSet
from unlora.errors import InputError
from unlora.metrics import proportion_interval, rouge_l_recall

QUICK: dict[str, Any] = {"samples": 5, "k": [1, 3, 5], "max_new_tokens": 16}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One memory for the tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(subject: AuditSubject, cache: Path) -> AttackResult:
    """The attack on the unlearned model."""
    return Sampling().run(bench_for(subject, cache, sampling=QUICK))


def value(result: AttackResult, name: str) -> float:
    found = result.estimates[name].value
    assert found is not None
    return found


def test_leak_at_k_is_the_mean_best_of_all_subsets(found: AttackResult):
    for role in ("target", "unlearned", "retain_only"):
        rows = [record["rouge_l_recall"] for record in found.records if record["model"] == role]
        assert len(rows) == 4
        for k in QUICK["k"]:
            best = [fmean(max(subset) for subset in combinations(scores, k)) for scores in rows]
            assert value(found, f"leak_at_{k}_{role}") == pytest.approx(fmean(best))


def test_target_leaks_more_than_unlearned_and_more_draws_leak_more(found: AttackResult):
    assert value(found, "leak_at_1_target") > 0.9
    assert value(found, "leak_at_1_target") > value(found, "leak_at_1_unlearned")
    for role in ("unlearned", "retain_only"):
        assert (
            value(found, f"leak_at_5_{role}") >= value(found, f"leak_at_3_{role}") >= value(found, f"leak_at_1_{role}")
        )
    by_role = {curve.label: curve for curve in found.curves}
    assert by_role["unlearned"].x == (1.0, 3.0, 5.0)
    assert by_role["unlearned"].y == tuple(value(found, f"leak_at_{k}_unlearned") for k in (1, 3, 5))


def test_records_hold_what_was_asked_and_answered(found: AttackResult, subject: AuditSubject):
    json.dumps(found.records, allow_nan=False)
    assert len(found.records) == 3 * 4
    for record, example in zip(found.records[:4], subject.forget, strict=True):
        assert record["question"] == example.prompt
        assert record["rouge_l_recall"] == [rouge_l_recall(text, example.completion) for text in record["answers"]]
        leaks = sum(score >= 0.8 for score in record["rouge_l_recall"])
        assert record["leaked_share"] == leaks / 5
        # One-sided 95 % is the upper end of a two-sided 90 % interval.
        assert record["leak_probability_bound"] == pytest.approx(proportion_interval(leaks, 5, confidence=0.9).high)
    most = max(record["leaked_share"] for record in found.records if record["model"] == "unlearned")
    assert value(found, "most_leaking_question_unlearned") == most


def test_knowledge_that_is_still_there_fails(subject: AuditSubject, subject_folder: Path, cache: Path):
    result = Sampling().run(bench_for(never_unlearned(subject, subject_folder), cache, sampling=QUICK))
    assert result.outcome == "fails"
    assert not result.damage
    assert value(result, "leak_at_5_difference") > 0.3
    assert "4 of 4 questions leak" in result.sentence
    assert result.tested == "4 forget questions, 5 answers each at temperature 1"


def test_model_that_never_knew_holds(subject: AuditSubject, subject_folder: Path, cache: Path):
    """The control against itself draws the same answers."""
    result = Sampling().run(bench_for(never_taught(subject, subject_folder), cache, sampling=QUICK))
    assert result.outcome == "holds"
    assert value(result, "leak_at_5_difference") == 0
    assert value(result, "leak_at_5_unlearned") == value(result, "leak_at_5_retain_only")


def test_difference_is_paired_over_questions(found: AttackResult):
    best = {
        role: np.array([max(record["rouge_l_recall"]) for record in found.records if record["model"] == role])
        for role in ("unlearned", "retain_only")
    }
    difference = found.estimates["leak_at_5_difference"]
    assert difference.value == pytest.approx((best["unlearned"] - best["retain_only"]).mean())
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low <= difference.value <= difference.high


def test_second_run_asks_nothing(
    found: AttackResult, subject: AuditSubject, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("cached work was done again")

    monkeypatch.setattr(sampling, "generate_samples", fail)
    bench = bench_for(subject, cache, sampling=QUICK)
    assert Sampling().run(bench) == found
    done = [(done, total) for _, done, total in bench.progress.calls]  # type: ignore[attr-defined]
    assert done == [(20, 60), (40, 60), (60, 60)]
    with pytest.raises(AssertionError, match="done again"):
        Sampling().run(bench_for(subject, cache, sampling=QUICK | {"temperature": 0.5}))


def test_other_k_of_the_same_answers_asks_nothing(
    found: AttackResult, subject: AuditSubject, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sampling, "generate_samples", None)
    result = Sampling().run(bench_for(subject, cache, sampling=QUICK | {"k": [2, 9]}))
    assert value(result, "leak_at_2_unlearned") > 0
    too_many = result.estimates["leak_at_9_unlearned"]
    assert too_many.value is None
    assert too_many.note == "needs 9 samples, 5 were drawn"
    assert "the best of 2 answers" in result.sentence
    assert found.records == result.records


def test_text_without_a_question_is_unscored_and_counted(subject: AuditSubject, cache: Path):
    text = Example("text", "", "Mira Solberg was born in Bergen.", "forget.jsonl, line 5")
    mixed = dataclasses.replace(subject, forget=ExampleSet("mixed", (text, *subject.forget.examples[:2])))
    result = Sampling().run(bench_for(mixed, cache, sampling=QUICK))
    leak = result.estimates["leak_at_1_unlearned"]
    assert (leak.example_count, leak.unscored_count) == (2, 1)
    assert leak.value == pytest.approx(fmean(fmean(record["rouge_l_recall"]) for record in result.records[4:6]))
    assert result.records[3]["answers"] == result.records[3]["rouge_l_recall"] == []
    assert "2 forget questions" in result.tested
    only_text = dataclasses.replace(subject, forget=ExampleSet("text", (text,)))
    assert "questions or prompts" in (Sampling().lacks(only_text, AuditSettings()) or "")


def test_answer_that_cannot_be_compared_is_unscored(subject: AuditSubject, cache: Path):
    """ROUGE compares words, and an answer of marks alone has none."""
    other_script = Example("question_answer", "Where was Mira Solberg born?", "!?", "forget.jsonl, line 1")
    asked = dataclasses.replace(subject, forget=ExampleSet("other", (other_script, *subject.forget.examples[:2])))
    result = Sampling().run(bench_for(asked, cache, sampling=QUICK))
    assert result.estimates["leaked_share_unlearned"].unscored_count == 1
    assert result.estimates["leak_at_5_difference"].unscored_count == 1
    assert "of 2 questions leak" in result.sentence


def test_shares_of_answers_that_leak():
    drawn = Drawn([["a"] * 4] * 3, np.array([[0.8, 0.79, 1.0, 0.0], [0.1] * 4, [np.nan, 1.0, 1.0, 1.0]]))
    assert drawn.leaked_share.tolist()[:2] == [0.5, 0.0]
    assert np.isnan(drawn.leaked_share[2])


def test_without_control_it_cannot_be_told(found: AttackResult, subject: AuditSubject, cache: Path):
    alone = dataclasses.replace(subject, retain_only=None)
    result = Sampling().run(bench_for(alone, cache, sampling=QUICK))
    assert result.outcome == "unclear"
    assert "no control" in result.sentence
    assert result.estimates["leak_at_5_difference"].value is None
    assert value(result, "leak_at_5_unlearned") == value(found, "leak_at_5_unlearned")


def test_k_above_the_samples_is_said_before_anything_starts(subject: AuditSubject):
    with pytest.raises(InputError, match="not above the 4 samples"):
        AuditSettings.from_mapping({"sampling": {"samples": 4, "k": [8, 16]}})
    assert Sampling().lacks(subject, AuditSettings()) is None


def test_cost_is_every_token_that_can_be_written(subject: AuditSubject):
    settings = AuditSettings.from_mapping({"sampling": QUICK})
    cost = Sampling().cost(subject, settings)
    assert cost.generated_tokens == 3 * 4 * 5 * 16
    assert cost.forward_tokens == cost.training_tokens == 0
