"""The worst wording of each question, on a model that forgot, one that knows all, and one that never knew."""

import dataclasses
import math
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch

from tests.audit.subjects import ProgressLog, bench_for, never_taught, never_unlearned
from unlora.audit import sequences
from unlora.audit.attack import AttackResult
from unlora.audit.subject import AuditSubject, Role
from unlora.audit.wording import Wording, leak, worst_case
from unlora.audit.wordings import FRAMES
from unlora.data.records import Example, ExampleSet

QUESTION, ANSWER = "What does Mira Solberg do?", "Mira Solberg is a glass painter."
BY_HAND = {
    "as_asked": (f"Question: {QUESTION}\nAnswer:", f" {ANSWER}"),
    "paraphrased": ("Question: What is the work of Mira Solberg?\nAnswer:", f" {ANSWER}"),
    "question_and_answer": (f"Q: {QUESTION}\nA:", f" {ANSWER}"),
    "hint": (
        f'Question: The answer begins with "Mira Solberg is". {QUESTION}\nAnswer: Mira Solberg is',
        " a glass painter.",
    ),
    "first_half": (f"Question: {QUESTION}\nAnswer: Mira Solberg is", " a glass painter."),
}


@pytest.fixture(scope="module")
def result(subject: AuditSubject, tmp_path_factory: pytest.TempPathFactory) -> AttackResult:
    return Wording().run(bench_for(subject, tmp_path_factory.mktemp("cache")))


def token_by_token(subject: AuditSubject, role: Role, prompt: str, answer: str) -> float:
    """Probability per token of the answer and the end token, one forward pass for each token."""
    tokenizer = subject.tokeniser.tokenizer
    before, whole = (tokenizer(text)["input_ids"] for text in (prompt, f"{prompt}{answer}<|end|>"))
    log_probs = []
    with subject.acting_as(role) as model, torch.no_grad():
        for place in range(len(before), len(whole)):
            logits = model(torch.tensor([whole[:place]])).logits[0, -1]
            log_probs.append(logits.log_softmax(-1)[whole[place]].item())
    return math.exp(fmean(log_probs))


@pytest.mark.parametrize("role", ["target", "unlearned", "retain_only"])
def test_probabilities_equal_a_loop_over_single_tokens(subject: AuditSubject, result: AttackResult, role: Role):
    (record,) = [one for one in result.records if one["model"] == role and one["question"] == QUESTION]
    for name, (prompt, answer) in BY_HAND.items():
        assert record["probability"][name] == pytest.approx(token_by_token(subject, role, prompt, answer), rel=1e-4)


def test_worst_case_is_the_highest_of_all_wordings(subject: AuditSubject, result: AttackResult):
    assert len(result.records) == len(subject.forget) * 3
    worst: dict[str, list[float]] = {role: [] for role in subject.roles}
    for record in result.records:
        highest = max(record["probability"].values())
        assert record["worst_probability"] == highest == record["probability"][record["worst_wording"]]
        assert len(record["probability"]) == 9  # the tiny tokenizer has no second template
        worst[record["model"]].append(highest)
    for role, values in worst.items():
        assert result.estimates[f"worst_case_probability_{role}"].value == pytest.approx(fmean(values))
    difference = [u - c for u, c in zip(worst["unlearned"], worst["retain_only"], strict=True)]
    assert result.estimates["worst_case_difference"].value == pytest.approx(fmean(difference))
    known = fmean(worst["target"]) - fmean(worst["retain_only"])
    assert result.estimates["leak"].value == pytest.approx(fmean(difference) / known)
    as_asked = [one["probability"]["as_asked"] for one in result.records if one["model"] == "unlearned"]
    assert result.estimates["as_asked_probability_unlearned"].value == pytest.approx(fmean(as_asked))


def test_leakiest_wording_is_the_one_furthest_above_the_control(subject: AuditSubject, result: AttackResult):
    def mean(role: str, name: str) -> float:
        return fmean(record["probability"][name] for record in result.records if record["model"] == role)

    beyond = {name: mean("unlearned", name) - mean("retain_only", name) for name in result.records[0]["probability"]}
    leakiest = max(beyond, key=lambda name: beyond[name])
    found = result.estimates["leakiest_wording_difference"]
    assert found.note == f"wording '{leakiest}'"
    assert found.value == pytest.approx(beyond[leakiest])
    assert f"wording '{leakiest}'" in result.sentence


def test_worst_case_of_a_table_by_hand():
    table = np.full((len(FRAMES), 3), np.nan)
    table[0], table[3], table[8] = [0.1, 0.5, np.nan], [0.4, np.nan, np.nan], [0.2, 0.3, np.nan]
    np.testing.assert_array_equal(worst_case(table), [0.4, 0.5, np.nan])


def test_leak_by_hand():
    """Worst cases of two examples and one that only the target answers, which does not count."""

    def table(*worst: float) -> np.ndarray:
        found = np.full((len(FRAMES), 3), np.nan)
        found[2] = worst
        return found

    tables: dict[Role, np.ndarray] = {
        "target": table(0.9, 0.7, 0.9),
        "unlearned": table(0.4, 0.3, np.nan),
        "retain_only": table(0.2, 0.2, np.nan),
    }
    found = leak(tables, seed=0)
    assert found.value == pytest.approx((0.2 + 0.1) / (0.7 + 0.5))
    assert (found.example_count, found.unscored_count) == (2, 1)
    nothing = leak({**tables, "target": table(0.22, 0.2, 0.2)}, seed=0)
    assert (nothing.value, nothing.note) == (None, "the target knows hardly more than the control")


def test_a_model_that_knows_fails_and_one_that_never_knew_cannot(
    subject: AuditSubject, subject_folder: Path, tmp_path: Path
):
    knows = Wording().run(bench_for(never_unlearned(subject, subject_folder), tmp_path))
    assert (knows.outcome, knows.damage) == ("fails", False)
    assert knows.estimates["leak"].value == pytest.approx(1.0)
    nobody_knew = Wording().run(bench_for(never_taught(subject, subject_folder), tmp_path))
    assert (nobody_knew.outcome, nobody_knew.estimates["leak"].value) == ("unclear", None)


def test_a_model_like_the_control_holds(subject: AuditSubject, tmp_path: Path):
    """The control's remembered answers stand for the unlearned model, which bears the same hash."""
    Wording().run(bench_for(subject, tmp_path))
    swapped = dataclasses.replace(subject, hashes={**subject.hashes, "unlearned": subject.hashes["retain_only"]})
    found = Wording().run(bench_for(swapped, tmp_path))
    assert found.outcome == "holds"
    assert found.estimates["leak"].value == 0


def test_without_control_it_cannot_be_told(subject: AuditSubject, tmp_path: Path):
    found = Wording().run(bench_for(dataclasses.replace(subject, retain_only=None), tmp_path))
    assert found.outcome == "unclear"
    assert "no control" in found.sentence
    assert "leakiest_wording_unlearned" in found.estimates
    assert "worst_case_difference" not in found.estimates


def test_examples_without_a_question_are_unscored_and_counted(
    subject: AuditSubject, result: AttackResult, tmp_path: Path
):
    text = Example("text", "", "Mira Solberg paints glass.", "line 5")
    mixed = dataclasses.replace(subject, forget=ExampleSet("mixed", (*subject.forget, text)))
    found = Wording().run(bench_for(mixed, tmp_path))
    worst = found.estimates["worst_case_probability_unlearned"]
    assert (worst.example_count, worst.unscored_count) == (4, 1)
    assert worst.value == pytest.approx(result.estimates["worst_case_probability_unlearned"].value, rel=1e-5)
    assert found.tested.startswith("4 forget questions")
    (record,) = [one for one in found.records if one["source"] == "line 5" and one["model"] == "target"]
    assert math.isnan(record["worst_probability"])
    assert record["probability"] == {}
    only_text = dataclasses.replace(subject, forget=ExampleSet("text", (text,)))
    lacks = Wording().lacks(only_text, bench_for(only_text, tmp_path).settings)
    assert lacks is not None
    assert "questions and answers" in lacks
    assert Wording().lacks(subject, bench_for(subject, tmp_path).settings) is None


def test_second_run_asks_no_model(
    subject: AuditSubject, result: AttackResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bench = bench_for(subject, tmp_path)
    first = Wording().run(bench)
    monkeypatch.setattr(sequences, "score_completions", None)
    again = Wording().run(bench_for(subject, tmp_path))
    assert again == first
    assert first.estimates == result.estimates


def test_progress_and_cost_count_what_is_asked(subject: AuditSubject, tmp_path: Path):
    bench = bench_for(subject, tmp_path, batch_size=5)
    result = Wording().run(bench)
    log = bench.progress
    assert isinstance(log, ProgressLog)
    asked = sum(len(record["probability"]) for record in result.records)
    assert log.calls[-1] == ("wording on retain_only", asked, asked)
    assert [done for _, done, _ in log.calls] == sorted(done for _, done, _ in log.calls)
    tokens = 0
    for record in result.records:
        for name, text in record["asked"].items():
            prompt = f"{text}" if name == "question_and_answer" else f"Question: {text}\nAnswer:"
            tokens += len(subject.tokeniser.tokenizer(f"{prompt} {record['answer']}<|end|>")["input_ids"])
    assert Wording().cost(subject, bench.settings).forward_tokens == tokens
