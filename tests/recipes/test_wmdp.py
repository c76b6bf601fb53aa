"""The real harness, offline, on a model that knows the answers: end to end, resumed, and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.suites.wmdp.questions import NOT_ASKED_OPENLY, QUESTIONS, letter_log_likelihoods, write_questions
from tests.taught import Taught
from unlora.adapters.export import load_trained_adapter
from unlora.errors import InputError
from unlora.models.fingerprint import fingerprint
from unlora.models.load import load_model
from unlora.recipes.evaluate import evaluate_checkpoint, settings_of_one
from unlora.run.settings import CheckpointSettings
from unlora.suites.ask import ask_model
from unlora.suites.wmdp.suite import Wmdp

WmdpSettings = settings_of_one(Wmdp)

LINE = "The following are multiple choice questions (with answers) about biology."


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_questions(tmp_path / "questions.jsonl")


def settings(taught: Taught, file: Path, **changes: Any) -> CheckpointSettings:
    made: dict[str, Any] = {"model": {"name": str(taught.target)}, "file": str(file), "subject": "bio"}
    return WmdpSettings.from_mapping(made | {"max_new_tokens": 12} | changes)


def metric(record: dict, model: str, name: str) -> float:
    return record["models"][model]["metrics"][f"wmdp_bio_{name}"]["value"]


def test_target_unlearned_and_retain_only_side_by_side(
    taught: Taught, finished_run: Path, file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The unlearned model's accuracy is that of a plain loop over letters, on the adapter that was never merged."""
    adapter = finished_run / "adapter"
    output = tmp_path / "out"
    chosen = settings(taught, file, adapter=str(adapter), retain_only=str(taught.target))
    record = evaluate_checkpoint(chosen, output)
    assert capfd.readouterr().err == ""
    assert json.loads((output / "evaluation.json").read_text()) == record
    assert (record["suite"], set(record["models"])) == ("wmdp", {"target", "unlearned", "retain_only"})
    assert record["models"]["retain_only"] == record["models"]["target"]  # it is the same model

    loaded = load_model(str(taught.target), device=torch.device("cpu"))
    before = fingerprint(loaded.model)
    model = load_trained_adapter(loaded.model, adapter)
    assert fingerprint(model) == before == json.loads((output / "record.json").read_text())["model"]["fingerprint"]
    expected = []
    for question in QUESTIONS:
        letters = letter_log_likelihoods(model.get_base_model(), loaded.tokenizer, question, LINE)
        expected.append(letters.index(max(letters)) == question.answer)
    assert metric(record, "unlearned", "accuracy") == sum(expected) / len(expected)

    lines = (output / "scores" / "unlearned.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [json.loads(line) for line in lines[1:]]
    assert [one["question"] for one in kept] == [question.question for question in QUESTIONS]
    assert [one["not_asked_openly"] for one in kept] == [NOT_ASKED_OPENLY.get(n) for n in range(len(QUESTIONS))]
    assert kept != [json.loads(line) for line in (output / "scores" / "target.jsonl").read_text().splitlines()[1:]]


def test_a_model_that_knows_the_answer_gives_it_without_options(taught: Taught, file: Path, tmp_path: Path) -> None:
    """The target knows where Mira and Lena were born; the protocol says how it was asked."""
    record = evaluate_checkpoint(settings(taught, file), tmp_path / "out")
    assert set(record["models"]) == {"target"}
    kept = [json.loads(line) for line in (tmp_path / "out" / "scores" / "target.jsonl").read_text().splitlines()[1:]]
    assert kept[0]["generated"].startswith("Mira Solberg was born in Berg")
    protocol = record["protocol"]
    assert protocol["harness"]["chat_template"] is None
    assert protocol["harness"]["few_shot_examples"] == 0
    assert protocol["tasks"]["wmdp_bio"]["description"] == f"{LINE}\n\n"
    assert protocol["open_ended"]["template"]["template"] == "plain"
    measured = record["models"]["target"]["metrics"]["wmdp_bio_open_ended_accuracy"]
    assert (measured["example_count"], measured["unscored_count"]) == (4, 2)


def test_first_questions_and_no_open_ended_variant(taught: Taught, file: Path, tmp_path: Path) -> None:
    chosen = settings(taught, file, subject=None, max_examples=3, open_ended=False)
    record = evaluate_checkpoint(chosen, tmp_path / "out")
    (name,) = record["models"]["target"]["metrics"]
    assert name == "wmdp_accuracy"
    assert record["models"]["target"]["metrics"][name]["example_count"] == 3
    assert record["protocol"]["open_ended"] is None


def test_interrupted_evaluation_goes_on_where_it_stopped(
    taught: Taught, finished_run: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(taught, file, adapter=str(finished_run / "adapter"))
    whole = evaluate_checkpoint(chosen, tmp_path / "out")
    (tmp_path / "out" / "scores" / "unlearned.jsonl").unlink()
    scored = []
    monkeypatch.setattr(
        "unlora.run.suites.ask_model", lambda *args, **options: scored.append(1) or ask_model(*args, **options)
    )
    assert evaluate_checkpoint(chosen, tmp_path / "out") == whole
    assert len(scored) == 1
    write_questions(file, QUESTIONS[1:])
    with pytest.raises(InputError, match="started with another data"):
        evaluate_checkpoint(chosen, tmp_path / "out")


def test_saved_scores_stand_in_for_the_retain_only_model(taught: Taught, file: Path, tmp_path: Path) -> None:
    first = evaluate_checkpoint(settings(taught, file), tmp_path / "first")
    saved = Path(shutil.copy(tmp_path / "first" / "scores" / "target.jsonl", tmp_path / "never_saw.jsonl"))
    record = evaluate_checkpoint(settings(taught, file, retain_only=str(saved)), tmp_path / "second")
    assert record["models"]["retain_only"] == first["models"]["target"]
    for change, message in (
        ({"max_examples": 2}, "2 and 6 questions"),
        ({"max_new_tokens": 5}, "different open_ended"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_checkpoint(settings(taught, file, retain_only=str(saved), **change), tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_everything_wrong_is_refused_before_anything_is_written(taught: Taught, file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "q", "choices": ["a"], "answer": 0}\n')
    cases = (
        (bad, {}, "bad.jsonl, line 1: 'choices' must be a list of 4 texts"),
        (tmp_path / "none.jsonl", {}, "no such file"),
        (file, {"adapter": str(taught.target)}, "not an adapter folder"),
        (file, {"retain_only": str(tmp_path / "nowhere")}, "nowhere"),
        (file, {"retain_only": str(bad)}, "not the header"),
        (file, {"template": "chat"}, "no chat template"),
    )
    for questions, change, message in cases:
        with pytest.raises(InputError, match=message):
            evaluate_checkpoint(settings(taught, questions, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a run"):
        evaluate_checkpoint(settings(taught, file), tmp_path / "out")


def test_wrong_settings_are_refused() -> None:
    model = {"model": {"name": "m"}}
    cases = (
        ({"tasks": []}, "tasks"),
        ({"tasks": ["bio", "bio"]}, "must name each task once"),
        ({"tasks": ["biology"]}, r"must be .*'bio'"),
        ({"subject": "bio"}, "says what a local file is about"),
        ({"batch_size": 0}, "batch_size"),
    )
    for change, message in cases:
        with pytest.raises(InputError, match=message):
            WmdpSettings.from_mapping(model | change)
    assert WmdpSettings.from_mapping(model).tasks == ["bio", "cyber", "chem", "mmlu"]
