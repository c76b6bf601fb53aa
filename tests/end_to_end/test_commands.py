"""From two files to a deployed adapter with commands alone: what each writes is what the contracts say."""

import json
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from tests.cli.commands import FORGET, QUICK, RETAIN, unlora, write_lines
from tests.tiny import save_tiny
from unlora.run.presets import resolve_settings

CONTRACT_METRICS = {
    "forget_probability": False,
    "retain_probability": True,
    "forget_rouge_l_recall": False,
    "forget_truth_ratio": None,
    "forget_quality": True,
    "model_utility": True,
    "extraction_strength": False,
    "exact_memorisation": False,
}
"""NAME -> higher_is_better."""


def with_other_answers(records: tuple[dict[str, str], ...]) -> list[dict[str, object]]:
    """Add a paraphrase and two wrong answers, as TOFU has them."""
    wrong = ["It is not known.", "Nobody can say."]
    return [{**record, "paraphrased_answer": record["answer"], "perturbed_answer": wrong} for record in records]


def succeed(*arguments: object) -> str:
    """Run a command that must work; returns its standard output."""
    result = unlora(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every command was run once, in the order of use."""
    place = tmp_path_factory.mktemp("place")
    model = save_tiny(place / "model")
    forget = write_lines(place / "forget.jsonl", with_other_answers(FORGET))
    retain = write_lines(place / "retain.jsonl", with_other_answers(RETAIN))
    sets = ("--forget", forget, "--retain", retain)
    learn = ("finetune", "--model", model, "--data", forget, "--data", retain, "--epochs", 1, "--set", "rank=8")
    succeed(*learn, "--output", place / "target")
    succeed(*learn, "--exclude", forget, "--method", "full", "--output", place / "retain_only")
    target = ("--model", place / "target")
    weights = ("--preset", "marginal")  # an anchored adapter: every kind of export
    succeed("importance", *target, *sets, *weights, "--output", place / "map.safetensors")
    reference = ("--retain-only", place / "retain_only")
    map_file = ("--set", f"start.file={place / 'map.safetensors'}")
    printed = succeed("unlearn", *target, *sets, *weights, *reference, *map_file, *QUICK, "--output", place / "run")
    (place / "unlearn.txt").write_text(printed)
    scores = ("--retain-only", place / "run" / "scores" / "retain_only.jsonl")
    adapter = ("--adapter", place / "run" / "adapter")
    printed = succeed("evaluate", *target, *sets, *scores, *QUICK[2:], *adapter, "--output", place / "again")
    (place / "evaluate.txt").write_text(printed)
    for form in (["--merged"], ["--adapter"], ["--rank", "4"], ["--adapter", "--public-base"]):
        succeed("export", place / "run", *form)
    return place


def read(file: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def test_run_folder_holds_the_files_of_the_contract(place: Path):
    found = {path.relative_to(place / "run").as_posix() for path in (place / "run").rglob("*") if path.is_file()}
    assert {path for path in found if not path.startswith(("export/", "scores/"))} == {
        "config.yaml",
        "importance.safetensors",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/README.md",
        "adapter/unlora.json",
        "train_log.jsonl",
        "evaluation.json",
        "record.json",
        "report.html",
    }


def test_evaluation_has_the_keys_of_the_contract(place: Path):
    evaluation = read(place / "run" / "evaluation.json")
    assert set(evaluation) == {"suite", "protocol", "notes", "models"}
    assert list(evaluation["models"]) == ["target", "unlearned", "retain_only"]
    for model in evaluation["models"].values():
        metrics = model["metrics"]
        assert set(metrics) >= set(CONTRACT_METRICS)
        for name, measured in metrics.items():
            assert set(measured) >= {"value", "standard_error", "example_count", "higher_is_better"}
            assert measured["higher_is_better"] == CONTRACT_METRICS.get(name, measured["higher_is_better"])
        assert metrics["forget_probability"]["example_count"] == len(FORGET)
        assert 0 <= metrics["forget_probability"]["value"] <= 1


def test_evaluating_again_gives_the_same_numbers(place: Path):
    # Plain PEFT adds the two halves of the adapter in one product, the run adds them apart: equal but for rounding.
    models = [read(place / folder / "evaluation.json")["models"] for folder in ("run", "again")]
    first, again = ({role: values(model) for role, model in found.items()} for found in models)
    assert again["target"] == first["target"]
    assert again["retain_only"] == first["retain_only"]
    assert again["unlearned"] == pytest.approx(first["unlearned"], rel=1e-4)


def values(model: dict[str, Any]) -> dict[str, float]:
    """The metrics that have a value."""
    return {name: measured["value"] for name, measured in model["metrics"].items() if measured["value"] is not None}


def test_table_has_a_column_for_each_model_and_says_what_is_missing(place: Path):
    for name, last in (("unlearn", f"adapter: {place / 'run' / 'adapter'}"), ("evaluate", "evaluation.json")):
        lines = (place / f"{name}.txt").read_text().splitlines()
        assert lines[0].split() == ["metric", "target", "unlearned", "retain_only"]
        assert any(line.startswith("forget_probability ") for line in lines)
        assert any(line.startswith("note: model_utility") for line in lines)
        assert lines[-1].endswith(last)


def test_record_tells_versions_stages_and_checks(place: Path):
    record = read(place / "run" / "record.json")
    assert record["finished"] is True
    assert {"unlora", "torch", "transformers", "peft", "python"} <= set(record["versions"])
    assert all(stage["seconds"] >= 0 and stage["peak_memory_bytes"] > 0 for stage in record["stages"].values())
    assert {"initialise", "training", "evaluation"} <= set(record["stages"])
    assert record["checks"]["base_weights_unchanged"] is True
    step_0 = record["checks"]["output_at_step_0"]
    assert step_0["largest_difference"] <= step_0["tolerance"]


def test_train_log_has_a_line_a_step(place: Path):
    lines = [json.loads(line) for line in (place / "run" / "train_log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1]
    assert set(lines[0]) >= {"step", "loss", "forget_term", "retain_term", "grad_norm", "seconds"}


def test_config_repeats_the_run(place: Path):
    settings = resolve_settings(preset_name=None, config_file=place / "run" / "config.yaml", flags={}, overrides=[])
    assert settings.model.name == str(place / "target")
    assert settings.training.epochs == 1


def test_same_command_again_finishes_at_once(place: Path):
    files = {path: path.stat().st_mtime_ns for path in (place / "run" / "adapter").iterdir()}
    printed = succeed("unlearn", place / "run" / "config.yaml", "--output", place / "run")
    assert printed == (place / "unlearn.txt").read_text()
    assert {path: path.stat().st_mtime_ns for path in (place / "run" / "adapter").iterdir()} == files


def test_importance_file_tells_what_it_is(place: Path):
    with safe_open(place / "map.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["unlora"])
    assert (header["space"], header["statistic"]) == ("marginals", "variance")
    assert header["forget"]["example_count"] == len(FORGET)
    assert header["model_fingerprint"] == read(place / "run" / "record.json")["model"]["fingerprint"]


def test_exports_load_with_plain_libraries(place: Path):
    export = place / "run" / "export"
    AutoModelForCausalLM.from_pretrained(export / "merged")
    ranks = {}
    for name in ("adapter-rank-4", "adapter-public-base"):
        model = AutoModelForCausalLM.from_pretrained(place / "model")
        ranks[name] = PeftModel.from_pretrained(model, str(export / name)).peft_config["default"].r
    assert ranks == {"adapter-rank-4": 4, "adapter-public-base": 8 + 16}
    assert (export / "adapter" / "README.md").is_file()


def test_export_overwrites_nothing(place: Path):
    result = unlora("export", place / "run", "--merged")
    assert result.exit_code == 2
    assert "choose another --output" in result.stderr
