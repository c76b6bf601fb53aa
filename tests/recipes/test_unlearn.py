"""The main path in this process: what a run folder holds, when it is refused, when work is repeated."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.taught import FORGET, PAD, Taught, write_jsonl
from tests.tiny import save_tiny
from tests.training.runs import logits
from unlora.artifacts import file_sha256
from unlora.config import read_yaml
from unlora.data.sources import load_examples
from unlora.errors import InputError, TrainingDivergedError
from unlora.importance import ImportanceMap
from unlora.models.fingerprint import adapter_sha256, fingerprint
from unlora.models.score import score_completions
from unlora.recipes.unlearn import unlearn
from unlora.run.settings import UnlearnSettings
from unlora.training.callbacks import read_train_log

ADAPTER = Path("adapter") / "adapter_model.safetensors"


def value(run: Path, model: str, metric: str) -> float:
    """One number of evaluation.json."""
    return json.loads((run / "evaluation.json").read_text())["models"][model]["metrics"][metric]["value"]


class Lines:
    """A reporter that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def task(self, title: str, total: int) -> Any:
        from unlora.run.reporter import SILENT

        self.lines.append(title)
        return SILENT.task(title, total)


def test_run_folder_holds_what_the_contract_names(finished_run: Path):
    names = {path.name for path in finished_run.iterdir()}
    files = {"config.yaml", "importance.safetensors", "train_log.jsonl", "evaluation.json", "record.json"}
    assert files | {"adapter", "scores"} <= names
    assert "checkpoints" not in names
    assert not [name for name in names if name.startswith(".")]


def test_target_is_forgotten_and_retained(finished_run: Path):
    assert value(finished_run, "target", "forget_probability") > 0.95
    assert value(finished_run, "unlearned", "forget_probability") < 0.6
    assert value(finished_run, "unlearned", "retain_probability") > 0.9


def test_record_says_what_was_done(finished_run: Path, taught: Taught):
    record = json.loads((finished_run / "record.json").read_text())
    assert record["finished"] is True
    assert set(record["stages"]) == {"importance", "initialise", "training", "evaluation"}
    for stage in record["stages"].values():
        assert stage["seconds"] >= 0
        assert stage["peak_memory_bytes"] > 0
    assert {"python", "unlora", "torch", "transformers", "peft"} <= set(record["versions"])
    assert record["model"]["fingerprint"] == fingerprint(taught.load().model)
    assert record["data"]["forget_sha256"] == load_examples(str(taught.forget)).sha256()
    assert record["data"]["retain_sha256"] == load_examples(str(taught.retain)).sha256()
    assert record["checks"]["base_weights_unchanged"] is True
    step_0 = record["checks"]["output_at_step_0"]
    assert step_0["largest_difference"] <= 1e-5
    assert step_0["logit_count"] > 0
    assert record["objective"] == {"forget": "ihl", "retain": "nll", "retain_weight": 1.3}
    assert record["template"]["template"] == "plain"
    assert record["seed"] == 0
    assert record["adapter_sha256"] == adapter_sha256(finished_run / "adapter")
    assert record["initialisation"]["module_count"] == 14


def test_train_log_has_a_line_for_every_step(finished_run: Path):
    lines = read_train_log(finished_run / "train_log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 9))
    for line in lines:
        assert {"step", "loss", "forget_term", "retain_term", "grad_norm", "seconds"} <= set(line)
        assert line["loss"] == pytest.approx(line["forget_term"] + 1.3 * line["retain_term"], rel=1e-5)
    assert lines[-1]["forget_term"] < lines[0]["forget_term"]


def test_evaluation_agrees_with_scores_of_the_plain_peft_model(finished_run: Path, taught: Taught):
    """Three lines on the target's folder, none of ours."""
    model = AutoModelForCausalLM.from_pretrained(taught.target)
    model = PeftModel.from_pretrained(model, str(finished_run / "adapter"))
    for file, metric in ((taught.forget, "forget_probability"), (taught.retain, "retain_probability")):
        sequences = [(example.input_ids, example.prompt_length) for example in taught.tokens(file)]
        scores = score_completions(model, sequences, pad_token_id=PAD)
        mean = sum(score.probability for score in scores) / len(scores)
        assert value(finished_run, "unlearned", metric) == pytest.approx(mean, abs=1e-5)
    with model.disable_adapter():
        assert torch.equal(logits(model, taught.batch()), logits(taught.load().model, taught.batch()))


def test_base_files_are_untouched(finished_run: Path, taught: Taught, tmp_path: Path):
    before = {path.name: file_sha256(path) for path in taught.target.iterdir()}
    unlearn(taught.settings(evaluation={"skip": True}), tmp_path / "run")
    assert {path.name: file_sha256(path) for path in taught.target.iterdir()} == before


def test_config_of_a_run_repeats_it(finished_run: Path, taught: Taught, tmp_path: Path):
    settings = UnlearnSettings.from_mapping(read_yaml(finished_run / "config.yaml"))
    assert settings == taught.settings()
    unlearn(settings, tmp_path / "again")
    for name in ("config.yaml", ADAPTER, "evaluation.json"):
        assert (tmp_path / "again" / name).read_bytes() == (finished_run / name).read_bytes()
    assert ImportanceMap.load(tmp_path / "again" / "importance.safetensors").modules
    first, second = (load_file(run / "importance.safetensors") for run in (finished_run, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_finished_run_started_again_repeats_nothing(finished_run: Path, taught: Taught, tmp_path: Path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}
    reporter = Lines()
    evaluation = unlearn(taught.settings(), run, reporter=reporter)
    assert evaluation == json.loads((run / "evaluation.json").read_text())
    assert "This run was finished before; nothing is repeated" in reporter.lines
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after == {path: content for path, (content, _) in before.items()}
    assert (run / ADAPTER).stat().st_mtime_ns == before[run / ADAPTER][1]


def test_missing_evaluation_is_made_without_training_again(finished_run: Path, taught: Taught, tmp_path: Path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / "evaluation.json").unlink()
    shutil.rmtree(run / "scores")
    adapter = (run / ADAPTER).stat().st_mtime_ns
    reporter = Lines()
    unlearn(taught.settings(), run, reporter=reporter)
    assert "Unlearning" not in reporter.lines
    assert (run / ADAPTER).stat().st_mtime_ns == adapter
    assert json.loads((run / "record.json").read_text())["stages"]["training"]["seconds"] > 0
    first, second = (json.loads((one / "evaluation.json").read_text())["models"] for one in (finished_run, run))
    for model, metrics in first.items():
        for name, measured in metrics["metrics"].items():
            if isinstance(measured["value"], float):
                assert second[model]["metrics"][name]["value"] == pytest.approx(measured["value"], rel=1e-4), name


def untouched(folder: Path, action: Any) -> InputError:
    """The refusal, after checking that nothing in the folder was written."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(InputError) as raised:
        action()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    return raised.value


def test_folder_of_another_run_is_refused(finished_run: Path, taught: Taught, tmp_path: Path):
    other = taught.settings(seed=1)
    assert "holds another run" in str(untouched(finished_run, lambda: unlearn(other, finished_run)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    error = untouched(tmp_path, lambda: unlearn(taught.settings(), tmp_path / "mine"))
    assert "not empty and not a run" in str(error)
    error = untouched(tmp_path, lambda: unlearn(taught.settings(), tmp_path / "mine" / "notes.txt"))
    assert "is a file" in str(error)


def test_run_is_not_resumed_with_other_data_or_another_model(finished_run: Path, taught: Taught, tmp_path: Path):
    """The files keep their names, what they hold does not."""
    forget = write_jsonl(tmp_path / "forget.jsonl", FORGET)
    model = Path(shutil.copytree(taught.target, tmp_path / "target"))
    settings = taught.settings(
        model={"name": str(model)}, data={"forget": str(forget)}, evaluation={"skip": True}, training={"epochs": 1}
    )
    unlearn(settings, tmp_path / "run")
    write_jsonl(forget, FORGET[:3])
    error = untouched(tmp_path / "run", lambda: unlearn(settings, tmp_path / "run"))
    assert "started with another data" in str(error)
    write_jsonl(forget, FORGET)
    assert unlearn(settings, tmp_path / "run") == {}
    shutil.rmtree(model)
    save_tiny(model, seed=5)
    error = untouched(tmp_path / "run", lambda: unlearn(settings, tmp_path / "run"))
    assert "measured on another model" in str(error)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"adapter": {"rank": 33}}, "adapter.rank: 33 does not fit target module"),
        ({"adapter": {"target_modules": ["q_prj"]}}, "Did you mean 'q_proj'"),
        ({"objective": {"forget": "ilh"}}, "Did you mean 'ihl'"),
        ({"data": {"max_length": 8}}, "leaves none for the completion"),
        ({"evaluation": {"retain_only": "./none"}}, "no such folder"),
    ],
    ids=["rank", "modules", "objective", "length", "retain-only"],
)
def test_bad_settings_write_nothing(taught: Taught, tmp_path: Path, sections: dict[str, Any], message: str):
    error = untouched(tmp_path, lambda: unlearn(taught.settings(**sections), tmp_path / "run"))
    assert message in str(error)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"adapter": {"lora_dropout": 0.1}}, "adapter.lora_dropout: must be 0"),
        ({"training": {"weight_decay": 0.1}}, "unknown key 'training.weight_decay'"),
        ({"data": {"retain": None}}, "needs data.retain"),
    ],
    ids=["dropout", "weight decay", "retain"],
)
def test_settings_that_cannot_work_are_refused(taught: Taught, sections: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        taught.settings(**sections)


def test_evaluation_set_that_cannot_be_asked_is_refused_before_training(taught: Taught, tmp_path: Path):
    long = write_jsonl(tmp_path / "long.jsonl", (("Where? " * 400, "There."),))
    settings = taught.settings(evaluation={"retain": str(long)})
    error = untouched(tmp_path, lambda: unlearn(settings, tmp_path / "run"))
    assert "long.jsonl, line 1" in str(error)


def test_example_longer_than_the_context_is_truncated_and_reported(taught: Taught, tmp_path: Path):
    """The tiny model's context is 256 tokens, the default max_length 512."""
    long = write_jsonl(tmp_path / "long.jsonl", (*FORGET, ("Where was Ida born?", "Ida was born in Oslo. " * 60)))
    reporter = Lines()
    settings = taught.settings(
        data={"forget": str(long)}, training={"epochs": 1}, evaluation={"skip": True}, adapter={"coverage": 0.3}
    )
    unlearn(settings, tmp_path / "run", reporter=reporter)
    assert any(f"1 truncated (first: {long}, line 5, " in line for line in reporter.lines)
    assert json.loads((tmp_path / "run" / "record.json").read_text())["template"]["max_length"] == 256
    # coverage 0.3 of 14 modules
    names = {name.split(".lora_")[0] for name in load_file(tmp_path / "run" / ADAPTER)}
    assert len(names) == 4 or len(names) == 5


def test_diverged_run_says_so_and_keeps_a_folder_that_resumes(taught: Taught, tmp_path: Path):
    settings = taught.settings(training={"learning_rate": 1e25, "save_steps": 1})
    with pytest.raises(TrainingDivergedError, match=r"learning rate \(1e\+25\) is too high.*another --output"):
        unlearn(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["finished"] is False
    assert "training" not in record["stages"]
    reporter = Lines()
    with pytest.raises(TrainingDivergedError):
        unlearn(settings, tmp_path / "run", reporter=reporter)
    assert "Importance" not in reporter.lines  # measured before, and kept


@pytest.mark.parametrize(("rate", "what"), [(1e38, "weights that it left are not finite"), (1e30, "no probability")])
def test_what_the_last_step_ruins_is_not_saved(taught: Taught, tmp_path: Path, rate: float, what: str):
    """Nothing after it would say so: there is no next loss."""
    training = {"learning_rate": rate, "epochs": 2, "save_steps": 1, "warmup_ratio": 0.0}
    settings = taught.settings(training=training | {"batch_size": 8}, start={"kind": "plain"})
    with pytest.raises(
        TrainingDivergedError, match=rf"step 1: the .*{what}.*the learning rate \(1e.3[08]\) is too high"
    ):
        unlearn(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()
    assert "adapter_sha256" not in json.loads((tmp_path / "run" / "record.json").read_text())
    for weights in (tmp_path / "run").rglob("adapter_model.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(weights).values())


@pytest.mark.parametrize("initialisation", ["uniform", "plain"])
def test_other_starts_run_through(taught: Taught, tmp_path: Path, initialisation: str):
    settings = taught.settings(start={"kind": initialisation}, training={"epochs": 2}, evaluation={"skip": True})
    assert unlearn(settings, tmp_path / "run") == {}
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["initialisation"]["kind"] == initialisation
    assert not (tmp_path / "run" / "importance.safetensors").exists()
    rank = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())["r"]
    assert rank == (4 if initialisation == "plain" else 8)
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert str(taught.target) not in card
    assert os.path.relpath(taught.target, tmp_path / "run" / "adapter") in card
    assert ("anchor" in card) == (initialisation == "uniform")


def test_forgetting_alone_in_bfloat16(taught: Taught, tmp_path: Path):
    settings = taught.settings(
        model={"dtype": "bfloat16"}, data={"retain": None}, objective={"forget": "npo", "retain": None},
        training={"epochs": 2},
    )  # fmt: skip
    evaluation = unlearn(settings, tmp_path / "run")
    assert set(evaluation["models"]) == {"target", "unlearned"}
    assert "retain_probability" not in evaluation["models"]["target"]["metrics"] or (
        evaluation["models"]["target"]["metrics"]["retain_probability"]["value"] is None
    )
    assert {tensor.dtype for tensor in load_file(tmp_path / "run" / ADAPTER).values()} == {torch.float32}
    assert "npo +" not in (tmp_path / "run" / "adapter" / "README.md").read_text()


def test_importance_file_gives_the_same_run(finished_run: Path, taught: Taught, tmp_path: Path):
    file = finished_run / "importance.safetensors"
    unlearn(taught.settings(start={"kind": "marginal", "file": str(file)}, evaluation={"skip": True}), tmp_path / "run")
    assert (tmp_path / "run" / ADAPTER).read_bytes() == (finished_run / ADAPTER).read_bytes()


def test_other_current_folder_does_not_matter(taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Relative paths: the adapter's config names the way from its own folder to the target."""
    monkeypatch.chdir(taught.target.parent)
    settings = taught.settings(
        model={"name": "target"},
        training={"epochs": 1},
        evaluation={"skip": True},
        start={"kind": "plain"},
    )
    unlearn(settings, Path(os.path.relpath(tmp_path / "run")))
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert (tmp_path / "run" / "adapter" / config["base_model_name_or_path"]).resolve() == taught.target
