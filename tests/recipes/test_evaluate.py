"""Models side by side: which are measured, on what, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.taught import FORGET, RETAIN, Taught, write_jsonl
from tests.tiny import save_tiny
from unlora.errors import InputError
from unlora.evaluation.suite import score_model
from unlora.recipes.evaluate import evaluate_checkpoint, evaluation_sets
from unlora.recipes.settings import DataSettings, EvaluateSettings, EvaluationSettings, UnlearnSettings
from unlora.recipes.unlearn import unlearn


def metric(record: dict, model: str, name: str) -> float | None:
    return record["models"][model]["metrics"][name]["value"]


def evaluate(settings: UnlearnSettings, adapter: Path | None, output: Path) -> dict:
    """`evaluate_checkpoint` with a run's own model, data and evaluation."""
    chosen = EvaluateSettings(
        model=settings.model,
        adapter=str(adapter) if adapter is not None else None,
        data=settings.data,
        evaluation=settings.evaluation,
    )
    return evaluate_checkpoint(chosen, output)


def test_checkpoint_alone_and_with_an_adapter(finished_run: Path, taught: Taught, tmp_path: Path):
    """The numbers of the run come out again."""
    alone = evaluate(taught.settings(), None, tmp_path / "alone")
    assert set(alone["models"]) == {"target"}
    both = evaluate(taught.settings(), finished_run / "adapter", tmp_path / "both")
    assert both == json.loads((tmp_path / "both" / "evaluation.json").read_text())
    assert sorted(path.name for path in (tmp_path / "both" / "scores").iterdir()) == ["target.jsonl", "unlearned.jsonl"]
    run = json.loads((finished_run / "evaluation.json").read_text())
    for model in ("target", "unlearned"):
        for name in ("forget_probability", "retain_probability", "forget_rouge_l_recall", "extraction_strength"):
            assert metric(both, model, name) == pytest.approx(metric(run, model, name), abs=1e-5)
            measured = both["models"][model]["metrics"][name]
            assert measured["example_count"] > 0
            assert isinstance(measured["higher_is_better"], bool | type(None))


def test_retain_only_model_or_its_scores_stand_beside(taught: Taught, tmp_path: Path):
    """Forget quality needs perturbed answers and a model that never saw the forget set."""
    forget = write_jsonl(tmp_path / "forget.jsonl", FORGET, perturbed=True)
    retain = write_jsonl(tmp_path / "retain.jsonl", RETAIN, perturbed=True)
    never_saw = Path(shutil.copytree(taught.target, tmp_path / "never_saw"))
    evaluation = {"forget": str(forget), "retain": str(retain), "retain_only": str(never_saw)}
    record = unlearn(taught.settings(evaluation=evaluation, training={"epochs": 2}), tmp_path / "run")
    assert set(record["models"]) == {"target", "unlearned", "retain_only"}
    assert record["suite"] == "tofu"
    assert metric(record, "target", "forget_quality") == pytest.approx(1.0)  # the same model twice
    assert metric(record, "unlearned", "forget_quality") is not None
    assert metric(record, "retain_only", "forget_probability") == metric(record, "target", "forget_probability")
    assert metric(record, "target", "model_utility") is None  # no real authors, no world facts

    saved = tmp_path / "run" / "scores" / "retain_only.jsonl"
    again = evaluate(
        taught.settings(evaluation=evaluation | {"retain_only": str(saved)}),
        tmp_path / "run" / "adapter",
        tmp_path / "again",
    )
    for model in record["models"]:
        assert metric(again, model, "forget_quality") == pytest.approx(metric(record, model, "forget_quality"))


def test_first_examples_only(taught: Taught):
    data = DataSettings(forget=str(taught.forget), retain=str(taught.retain))
    sets = evaluation_sets(EvaluationSettings(max_examples=3), data)
    assert {name: len(examples) for name, examples in sets.items()} == {"forget": 3, "retain": 3}
    assert set(evaluation_sets(EvaluationSettings(), DataSettings(forget=str(taught.forget)))) == {"forget"}


def test_wrong_adapter_or_folder_is_refused_and_nothing_is_written(taught: Taught, tmp_path: Path, finished_run: Path):
    other = save_tiny(tmp_path / "gpt2", "gpt2")
    cases = [
        (taught.settings(), taught.target, "not an adapter folder"),
        (taught.settings(model={"name": str(other)}), finished_run / "adapter", "does not fit the model"),
    ]
    for settings, adapter, message in cases:
        with pytest.raises(InputError, match=message):
            evaluate(settings, adapter, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="holds another run"):
        evaluate(taught.settings(), None, finished_run)


def test_interrupted_evaluation_goes_on_where_it_stopped(
    taught: Taught, tmp_path: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
):
    """The target was scored; the same command scores only what is missing, and other settings are refused."""
    whole = evaluate(taught.settings(), finished_run / "adapter", tmp_path / "out")
    (tmp_path / "out" / "evaluation.json").unlink()
    (tmp_path / "out" / "scores" / "unlearned.jsonl").unlink()
    scored = []
    monkeypatch.setattr(
        "unlora.recipes.evaluate.score_model",
        lambda *args, **options: scored.append(1) or score_model(*args, **options),
    )
    assert evaluate(taught.settings(), finished_run / "adapter", tmp_path / "out") == whole
    assert len(scored) == 1
    with pytest.raises(InputError, match="holds another run"):
        evaluate(taught.settings(), None, tmp_path / "out")


def test_scores_of_other_data_or_another_adapter_are_not_taken_over(taught: Taught, tmp_path: Path, finished_run: Path):
    """The files keep their names, what they hold does not: saved scores would be stale."""
    forget = write_jsonl(tmp_path / "forget.jsonl", FORGET)
    adapter = Path(shutil.copytree(finished_run / "adapter", tmp_path / "adapter"))
    settings = taught.settings(data={"forget": str(forget)})
    evaluate(settings, adapter, tmp_path / "out")
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match="started with another adapter"):
        evaluate(settings, adapter, tmp_path / "out")
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    write_jsonl(forget, FORGET[1:])
    with pytest.raises(InputError, match="started with another"):
        evaluate(settings, adapter, tmp_path / "out")
