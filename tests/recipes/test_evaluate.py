"""Models side by side: which are measured, on what, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.taught import FORGET, RETAIN, Taught, write_jsonl
from tests.tiny import build_tiny_model, build_tiny_tokenizer, save_tiny
from unlora.errors import InputError
from unlora.metrics import MODEL_UTILITY_PARTS
from unlora.recipes.evaluate import evaluate_checkpoint
from unlora.recipes.unlearn import unlearn
from unlora.run.settings import DataSettings, EvaluateSettings, EvaluationSettings, UnlearnSettings
from unlora.run.suites import evaluation_sets
from unlora.suites import questioner as suite
from unlora.suites.ask import ask_model

TOFU_FOLDER = Path(__file__).parents[3] / "shared" / "data" / "tofu"


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
        (taught.settings(model={"name": str(other)}), finished_run / "adapter", "was made for a model with weights"),
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
        "unlora.run.suites.ask_model",
        lambda *args, **options: scored.append(1) or ask_model(*args, **options),
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


def questions_asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers each pass over a set scores, from now on."""
    counts: list[int] = []
    original = suite.score_completions

    def count(model: Any, sequences: Any, **options: Any) -> Any:
        counts.append(len(sequences))
        return original(model, sequences, **options)

    monkeypatch.setattr(suite, "score_completions", count)
    return counts


def test_another_run_on_the_same_model_does_not_ask_it_again(
    taught: Taught, tmp_path: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
):
    """The target is shared by all runs; an adapter is known by its values, wherever it lies; other data is new."""
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "cache"))  # the finished run may have been made just now
    asked = questions_asked(monkeypatch)
    evaluate(taught.settings(), None, tmp_path / "alone")
    assert asked == [4, 8]
    first = evaluate(taught.settings(), finished_run / "adapter", tmp_path / "both")
    assert asked == [4, 8, 4, 8]  # the unlearned model
    moved = Path(shutil.copytree(finished_run / "adapter", tmp_path / "moved"))
    assert evaluate(taught.settings(), moved, tmp_path / "again") == first
    assert len(asked) == 4
    weights = load_file(moved / "adapter_model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, moved / "adapter_model.safetensors")
    other = evaluate(taught.settings(), moved, tmp_path / "other")
    assert len(asked) == 6
    assert metric(other, "unlearned", "forget_probability") != metric(first, "unlearned", "forget_probability")


def test_answers_that_end_elsewhere_are_not_taken_from_the_cache(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """generation_config.json says where an answer ends, and is neither in the weights nor in config.json."""
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "cache"))
    asked = questions_asked(monkeypatch)
    before = evaluate(taught.settings(), None, tmp_path / "before")
    other = Path(shutil.copytree(taught.target, tmp_path / "other"))
    first = taught.tokens(taught.forget)[0]
    config = other / "generation_config.json"
    ends = [0, first.input_ids[first.prompt_length]]
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": ends}))
    after = evaluate(taught.settings(model={"name": str(other)}), None, tmp_path / "after")
    assert asked == [4, 8, 4, 8]
    assert metric(after, "target", "forget_probability") == metric(before, "target", "forget_probability")
    ends_early, whole = (metric(one, "target", "forget_rouge_l_recall") for one in (after, before))
    assert ends_early is not None
    assert whole is not None
    assert ends_early < whole - 0.5


def test_protocol_and_what_was_changed_of_it_are_recorded(taught: Taught, tmp_path: Path):
    record = evaluate(taught.settings(evaluation={"protocol": "tofu", "max_examples": 2}), None, tmp_path / "out")
    protocol = record["protocol"]
    assert (protocol["name"], protocol["overridden"]) == ("tofu", ["max_examples", "max_new_tokens"])
    assert (protocol["max_examples"], protocol["max_new_tokens"], protocol["total_generation_length"]) == (2, 12, 200)
    assert protocol["template"]["max_length"] == 200
    assert record["models"]["target"]["metrics"]["forget_probability"]["example_count"] == 2
    assert not (tmp_path / "out" / "open_unlearning").exists()


def test_open_unlearning_s_files_are_written_and_serve_as_reference(taught: Taught, tmp_path: Path, finished_run: Path):
    forget = write_jsonl(tmp_path / "forget.jsonl", FORGET, perturbed=True)
    evaluation = {"protocol": "open_unlearning", "forget": str(forget)}
    first = evaluate(taught.settings(evaluation=evaluation), finished_run / "adapter", tmp_path / "first")
    assert metric(first, "target", "forget_quality") is None
    files = {path.relative_to(tmp_path / "first").as_posix() for path in (tmp_path / "first").rglob("TOFU_*")}
    roles = ("target", "unlearned")
    assert files == {f"open_unlearning/{role}/TOFU_{kind}.json" for role in roles for kind in ("EVAL", "SUMMARY")}
    reference = tmp_path / "first" / "open_unlearning" / "target" / "TOFU_EVAL.json"
    summary = json.loads(reference.with_name("TOFU_SUMMARY.json").read_text())
    assert summary["forget_Q_A_Prob"] == pytest.approx(metric(first, "target", "forget_probability"))

    settings = taught.settings(evaluation=evaluation | {"retain_only": str(reference)})
    second = evaluate(settings, finished_run / "adapter", tmp_path / "second")
    assert list(second["models"]) == ["target", "unlearned", "retain_only"]
    assert metric(second, "target", "forget_quality") == pytest.approx(1)
    assert metric(second, "unlearned", "forget_quality") is not None
    note = second["models"]["target"]["metrics"]["forget_quality"]["note"]
    assert "only the number of questions was compared" in note
    for other in ("unlora", "tofu"):
        changed = taught.settings(evaluation=settings.evaluation.model_dump() | {"protocol": other})
        with pytest.raises(InputError, match=f"by protocol open_unlearning, .* {other}; set evaluation.protocol"):
            evaluate(changed, None, tmp_path / other)
        assert not (tmp_path / other).exists()


def test_log_of_another_forget_set_is_refused_before_any_work(taught: Taught, tmp_path: Path):
    log = {"eval_log_forget": {"avg_gt_loss": {"0": 1.0, "1": 1.0}}}
    (tmp_path / "log.json").write_text(json.dumps(log))
    settings = taught.settings(evaluation={"protocol": "tofu", "retain_only": str(tmp_path / "log.json")})
    with pytest.raises(InputError, match=r"log.json: scores of 2 forget examples, and here are 4; .*max_examples"):
        evaluate(settings, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "log.json").write_text("{}")
    with pytest.raises(InputError, match=r"log.json: not a result log of TOFU or OpenUnlearning"):
        evaluate(settings, None, tmp_path / "out")


@pytest.mark.parametrize("protocol", ["tofu", "open_unlearning"])
def test_other_sets_of_model_utility_are_taken_from_beside_the_forget_set(tmp_path: Path, protocol: Any):
    for split in ("forget01", "forget01_perturbed", "retain99", "world_facts_perturbed"):
        write_jsonl(tmp_path / f"{split}.jsonl", FORGET, perturbed=split.endswith("perturbed"))
    data = DataSettings(forget=f"tofu:forget01@{tmp_path}")
    assert set(evaluation_sets(EvaluationSettings(), data)) == {"forget"}
    sets = evaluation_sets(EvaluationSettings(protocol=protocol), data)
    assert {name: examples.name for name, examples in sets.items()} == {
        "forget": "tofu:forget01_perturbed",
        "world_facts": "tofu:world_facts_perturbed",
    }
    chosen = EvaluationSettings(protocol=protocol, world_facts=str(tmp_path / "retain99.jsonl"))
    assert evaluation_sets(chosen, data)["world_facts"].name == str(tmp_path / "retain99.jsonl")


@pytest.mark.skipif(not TOFU_FOLDER.is_dir(), reason="the TOFU files are not here")
@pytest.mark.parametrize("split", ["forget01", "forget05", "forget10"])
def test_tofu_folder_gives_all_nine_parts_of_model_utility(tmp_path: Path, split: str):
    lines = [(TOFU_FOLDER / f"{name}.json").read_text() for name in (split, "world_facts_perturbed")]
    tokenizer = build_tiny_tokenizer(lines, vocab_size=3000)
    build_tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    settings = EvaluateSettings.from_mapping(
        {
            "model": {"name": str(tmp_path / "model")},
            "data": {"forget": f"tofu:{split}@{TOFU_FOLDER}"},
            "evaluation": {"protocol": "tofu", "max_examples": 3, "max_new_tokens": 2},
        }
    )
    record = evaluate_checkpoint(settings, tmp_path / "out")
    metrics = record["models"]["target"]["metrics"]
    parts = {name: metrics[name] for name in MODEL_UTILITY_PARTS}
    assert {part["example_count"] for part in parts.values()} == {3}
    assert all(0 <= part["value"] <= 1 for part in parts.values())
    assert metrics["model_utility"]["value"] is not None
    assert metrics["forget_truth_ratio"]["example_count"] == 3


@pytest.mark.skipif(not TOFU_FOLDER.is_dir(), reason="the TOFU files are not here")
def test_protocols_take_tofu_s_items():
    def counts(protocol: Any, split: str) -> list[int]:
        data = DataSettings(forget=f"tofu:{split}@{TOFU_FOLDER}", retain=f"tofu:retain99@{TOFU_FOLDER}")
        sets = evaluation_sets(EvaluationSettings(protocol=protocol), data)
        return [len(sets[name]) for name in ("forget", "retain", "real_authors", "world_facts")]

    assert counts("tofu", "forget01") == [40, 300, 100, 117]
    assert counts("tofu", "forget10") == [300, 300, 100, 117]
    assert counts("open_unlearning", "forget05") == [200, 400, 100, 117]
    assert counts("open_unlearning", "forget10") == [400, 400, 100, 117]


def test_retain_only_model_that_reads_other_tokens_is_refused(taught: Taught, tmp_path: Path):
    other = save_tiny(tmp_path / "gpt2", "gpt2")
    with pytest.raises(InputError, match="its tokenizer is not the target model's"):
        evaluate(taught.settings(evaluation={"retain_only": str(other)}), None, tmp_path / "out")
