"""Metrics and record from scores made by hand: every number worked out on paper."""

import dataclasses
import math
from pathlib import Path

import pytest

from unlora.errors import InputError
from unlora.suites.record import evaluation_record
from unlora.suites.scores import ModelScores
from unlora.suites.wmdp.metrics import measure_wmdp
from unlora.suites.wmdp.scores import WMDP_FILE, QuestionScore
from unlora.suites.wmdp.suite import Wmdp

NAN = math.nan


def score(correct: float, log_probs: tuple[float, ...] = (), **changes: object) -> QuestionScore:
    """A question whose right choice is the second."""
    made = QuestionScore(
        source="made up, entry 1",
        question="Where?\u2028Here?",
        choices=("a", "b", "c", "d"),
        answer=1,
        letter_log_probs=(-1.0, -2.0, -3.0, NAN),
        correct=correct,
        truncated=False,
        choice_log_probs=log_probs,
        generated="b" if log_probs else None,
        rouge_l_recall=0.5 if log_probs else NAN,
        not_asked_openly=None if log_probs else "the question refers to its options",
    )
    return dataclasses.replace(made, **changes)


def third(*probabilities: float) -> tuple[float, ...]:
    return tuple(map(math.log, probabilities))


WMDP = (
    score(1.0, third(0.1, 0.3, 0.1, 0.1)),  # the right text is likeliest, with half of the four's probability
    score(0.0, third(0.2, 0.1, 0.1, 0.1)),  # another is; a fifth
    score(0.0, third(0.2, 0.2, 0.1, 0.1)),  # two tie; a third
    score(NAN, (NAN,) * 4, rouge_l_recall=NAN),  # a broken answer
    score(1.0, truncated=True),  # cannot be asked openly
)
MMLU = (score(1.0, not_asked_openly=None), score(0.0, not_asked_openly=None))
PROTOCOL = {"harness": {"name": "lm_eval", "version": "0.4.13"}, "open_ended": {"max_new_tokens": 8}}
SCORES = ModelScores({"wmdp_bio": WMDP, "mmlu": MMLU}, PROTOCOL)


def test_accuracy_with_options() -> None:
    metrics = measure_wmdp(SCORES)
    bio, mmlu = metrics["wmdp_bio_accuracy"], metrics["mmlu_accuracy"]
    assert (bio.value, bio.example_count, bio.unscored_count, bio.higher_is_better) == (0.5, 4, 1, False)
    assert bio.standard_error == pytest.approx(math.sqrt(1 / 3 / 4))  # sample variance of 1, 0, 0, 1
    assert "1 of 5 prompts lost their beginning" in bio.note
    assert "chance is 0.25" in bio.note
    assert (mmlu.value, mmlu.higher_is_better, mmlu.note) == (0.5, True, "")


def test_asked_without_options() -> None:
    metrics = measure_wmdp(SCORES)
    accuracy = metrics["wmdp_bio_open_ended_accuracy"]
    assert (accuracy.value, accuracy.example_count, accuracy.unscored_count) == (0.5, 3, 2)  # (1 + 0 + 1/2) / 3
    assert metrics["wmdp_bio_open_ended_probability"].value == pytest.approx((1 / 2 + 1 / 5 + 1 / 3) / 3)
    rouge = metrics["wmdp_bio_open_ended_rouge_l_recall"]
    assert (rouge.value, rouge.example_count, rouge.unscored_count) == (0.5, 3, 2)
    for measured in (accuracy, rouge):
        assert measured.higher_is_better is False
        assert "1 of 5 not asked: the question refers to its options" in measured.note
    assert not any(name.startswith("mmlu_open") for name in metrics)
    without = measure_wmdp(ModelScores(SCORES.sets, PROTOCOL | {"open_ended": None}))
    assert set(without) == {"wmdp_bio_accuracy", "mmlu_accuracy"}


def test_nothing_scored_has_no_value() -> None:
    measured = measure_wmdp(ModelScores({"wmdp": (score(NAN),)}, PROTOCOL))
    assert {one.value for one in measured.values()} == {None}


def test_record_has_the_contract_s_form() -> None:
    record = evaluation_record(Wmdp(max_examples=5), {"target": SCORES, "unlearned": SCORES})
    assert (record["suite"], record["protocol"]) == ("wmdp", PROTOCOL | {"max_examples": 5})
    bio = record["models"]["unlearned"]["metrics"]["wmdp_bio_accuracy"]
    assert (bio["value"], bio["example_count"], bio["unscored_count"], bio["higher_is_better"]) == (0.5, 4, 1, False)


def test_scores_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "target.jsonl"
    WMDP_FILE.save(path, SCORES)
    loaded = WMDP_FILE.load(path)
    assert repr(loaded) == repr(SCORES)  # NaN is not equal to itself
    text = path.read_text(encoding="utf-8")
    assert "NaN" not in text
    cases = (
        (text.replace("multiple-choice scores", "example scores"), "line 1: not the header"),
        (text.replace('"correct": 1.0', '"corect": 1.0', 1), "line 2: not an example's scores"),
        (text + "{\n", "line 9: not valid JSON"),
        ("", "line 1: not valid JSON"),
    )
    for changed, message in cases:
        path.write_text(changed, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            WMDP_FILE.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        WMDP_FILE.load(tmp_path / "other.jsonl")


def test_models_that_were_asked_otherwise_are_not_set_side_by_side() -> None:
    question = score(0.0, source="elsewhere")
    Wmdp().check_comparable(SCORES, ModelScores({"wmdp_bio": (question,) * 5, "mmlu": (question,) * 2}, PROTOCOL))
    other = dataclasses.replace(question, answer=2)
    cases = (
        (
            {"wmdp_bio": (question,) * 5, "mmlu": (question,) * 2},
            PROTOCOL | {"open_ended": None},
            "different open_ended",
        ),
        ({"wmdp_bio": (question,) * 5, "mmlu": (question,) * 2}, PROTOCOL | {"harness": {}}, "different harness"),
        ({"wmdp_bio": (question,) * 5}, PROTOCOL, "one model was asked wmdp_bio, mmlu, another wmdp_bio;"),
        ({"wmdp_bio": (question,) * 4, "mmlu": (question,) * 2}, PROTOCOL, r"wmdp_bio questions \(5 and 4 questions\)"),
        ({"wmdp_bio": (question,) * 5, "mmlu": (question, other)}, PROTOCOL, "different mmlu questions"),
    )
    for tasks, protocol, message in cases:
        with pytest.raises(InputError, match=message):
            Wmdp().check_comparable(SCORES, ModelScores(tasks, protocol))
    with pytest.raises(InputError, match="different open_ended"):
        evaluation_record(
            Wmdp(), {"target": SCORES, "unlearned": ModelScores(SCORES.sets, PROTOCOL | {"open_ended": {}})}
        )
