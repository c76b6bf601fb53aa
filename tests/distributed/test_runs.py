"""Whole runs by two processes, DDP, FSDP2 and ZeRO-3 over gloo: importance, training, evaluation, equal to one."""

import dataclasses
import importlib.util
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.ranks import Ended, run_ranks
from tests.muse_files import write_muse
from tests.recipes.processes import KILLED, KillAt, LimitFiles, run
from tests.suites.wmdp.questions import write_questions
from tests.taught import Taught
from unlora.suites.muse.scores import MUSE_FILE
from unlora.suites.tofu.scores import TOFU_FILE
from unlora.suites.wmdp.scores import WMDP_FILE
from unlora.training.callbacks import read_train_log

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
"""What the launcher makes of unlora/launch/fsdp2.yaml."""
ZERO3 = {
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
    "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
}
"""What it makes of unlora/launch/zero3.yaml."""
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
ENGINES = {"ddp": {}, "fsdp2": FSDP2, "zero3": ZERO3}
SHARDED = ["fsdp2", pytest.param("zero3", marks=needs_deepspeed)]


def command(taught: Taught, output: Path, *further: str) -> list[str]:
    """An anchored start, a reference of either kind, 7 batches of 3 pairs and a last one of 1, two a step."""
    return [
        "unlearn", "--model", str(taught.target), "--forget", str(taught.forget), "--retain", str(taught.retain),
        "--preset", "marginal", "--set", "objective.forget=npo", "--set", "objective.retain=kl",
        "--set", "start.batch_size=3", "--set", "adapter.rank=4", "--set", "adapter.alpha=8",
        "--set", "training.learning_rate=5e-3", "--set", "training.epochs=5", "--set", "training.batch_size=3",
        "--set", "training.gradient_accumulation_steps=2", "--set", "training.save_steps=2",
        "--set", "evaluation.max_new_tokens=4", "--output", str(output), *further,
    ]  # fmt: skip


def unlora(arguments: list[str], sabotage: Callable[[], None] | None = None) -> None:
    """The command, in a process that `run_ranks` starts; `sabotage` runs there first."""
    from unlora.cli.main import main

    if sabotage is not None:
        sabotage()
    main(arguments, prog_name="unlora")


def said(ended: Ended) -> list[str]:
    """Lines that are not torch's, which was loaded here before the command could quieten it."""
    return [line for line in ended.text.splitlines() if not line.startswith("[rank")]


def results(folder: Path) -> dict[str, Any]:
    """All numbers of a run."""
    evaluation = json.loads((folder / "evaluation.json").read_text())
    record = json.loads((folder / "record.json").read_text())
    assert record["finished"] is True
    assert record["checks"]["base_weights_unchanged"] is True
    log = read_train_log(folder / "train_log.jsonl")
    scores = {name: TOFU_FILE.load(folder / "scores" / f"{name}.jsonl").sets for name in evaluation["models"]}
    return {
        "answers": {
            name: {key: [(one.source, one.generated) for one in sets[key]] for key in sets}
            for name, sets in scores.items()
        },
        "adapter": load_file(folder / "adapter" / "adapter_model.safetensors"),
        "importance": load_file(folder / "importance.safetensors"),
        "log": [{key: line[key] for key in line if key != "seconds"} for line in log],
        "metrics": {
            f"{model}/{name}": math.nan if metric["value"] is None else metric["value"]
            for model, found in evaluation["models"].items()
            for name, metric in found["metrics"].items()
        },
        "files": sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
    }


@pytest.fixture(scope="module")
def alone(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    code, text = run(command(taught, folder / "run"))
    assert code == 0, text
    return results(folder / "run")


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["files"] == expected["files"]
    assert found["answers"] == expected["answers"]
    assert found["adapter"].keys() == expected["adapter"].keys()
    for name, tensor in expected["importance"].items():
        scale = 1.0 if name.endswith("squared_mean_share") else float(tensor.nan_to_num().abs().max())
        torch.testing.assert_close(
            found["importance"][name], tensor, rtol=1e-6, atol=1e-6 * scale, equal_nan=True, msg=name
        )
    assert found["log"] == [pytest.approx(line, rel=1e-5, abs=1e-6) for line in expected["log"]]
    for name, tensor in expected["adapter"].items():
        # Adam divides by the gradient's own size: where that is next to nothing, rounding decides single entries.
        assert (found["adapter"][name] - tensor).norm() <= 1e-4 * tensor.norm(), name
    assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-4, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("engine", ["ddp", *SHARDED])
def test_a_run_by_two_processes_is_that_of_one(taught: Taught, alone: dict[str, Any], tmp_path: Path, engine: str):
    main, other = run_ranks(2, unlora, command(taught, tmp_path / "run"), **ENGINES[engine])
    assert (main.code, other.code) == (0, 0), main.text + other.text
    assert said(other) == []
    assert_same(results(tmp_path / "run"), alone)


@pytest.mark.parametrize("engine", SHARDED)
def test_a_sharded_run_goes_on_sharded_and_not_otherwise(
    taught: Taught, alone: dict[str, Any], tmp_path: Path, engine: str
):
    arguments = command(taught, tmp_path / "run")
    kill = KillAt("unlora.training.callbacks", "TrainLog.on_log", 3)  # of 4 steps, with a checkpoint after the second
    assert KILLED in [ended.code for ended in run_ranks(2, unlora, arguments, kill, **ENGINES[engine])]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-2"]

    code, text = run(arguments)
    assert code == 2
    assert f"checkpoint-2: was written with {engine}; start the same command with it again" in text

    for ended in run_ranks(2, unlora, arguments, **ENGINES[engine]):
        assert ended.code == 0, ended.text
    assert_same(results(tmp_path / "run"), alone)


class OnRank:
    """Does something to one of the processes only."""

    def __init__(self, rank: int, sabotage: KillAt | LimitFiles) -> None:
        self.rank, self.sabotage = rank, sabotage

    def __call__(self) -> None:
        if os.environ["RANK"] == str(self.rank):
            self.sabotage()


LOSSES = {
    "importance": OnRank(1, KillAt("unlora.importance.accumulate", "Turns.is_mine", 2)),
    "evaluation": OnRank(1, KillAt("unlora.suites.questioner", "score_completions")),
    "the writer, while it saves": OnRank(0, KillAt("unlora.adapters.export", "new_folder")),
    "the writer's disk": OnRank(0, LimitFiles(20_000, "unlora.adapters.export", "new_folder")),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_what_a_lost_process_leaves_is_finished_by_one(
    taught: Taught, alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
):
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "cache"))
    arguments = command(taught, tmp_path / "run")
    ended = run_ranks(2, unlora, arguments, LOSSES[loss])
    assert all("Traceback" not in one.text for one in ended)
    if loss == "the writer's disk":
        assert ended[0].code == 1
        assert said(ended[0])[-1] == (
            f"error: {tmp_path / 'run' / 'adapter'}: no space left on the disk; free some and start the same command "
            "again."
        )
    else:
        assert ended[LOSSES[loss].rank].code == KILLED
    assert (tmp_path / "run" / "adapter").exists() == (loss == "evaluation")
    assert not (tmp_path / "run" / "evaluation.json").exists()

    code, text = run(arguments)
    assert code == 0, text
    assert_same(results(tmp_path / "run"), alone)


def test_evaluation_by_more_processes_than_questions(taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def arguments(name: str) -> list[str]:
        monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / f"cache-{name}"))  # nothing is found, all is asked
        return [
            "evaluate", "--model", str(taught.target), "--forget", str(taught.forget), "--retain", str(taught.retain),
            "--set", "evaluation.max_examples=1", "--set", "evaluation.max_new_tokens=4",
            "--output", str(tmp_path / name),
        ]  # fmt: skip

    code, text = run(arguments("alone"))
    assert code == 0, text
    for ended in run_ranks(2, unlora, arguments("together")):
        assert ended.code == 0, ended.text
    alone, together = (
        TOFU_FILE.load(tmp_path / name / "scores" / "target.jsonl").sets for name in ("alone", "together")
    )
    assert len(alone["forget"]) == len(alone["retain"]) == 1
    assert together == alone


def test_muse_and_wmdp_by_two_processes_give_what_one_gives(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of six questions each process has three; numbers agree, and texts are the same."""
    muse, file = write_muse(tmp_path / "muse"), write_questions(tmp_path / "questions.jsonl")

    def arguments(name: str) -> list[str]:
        monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / f"cache-{name}"))  # nothing is found, all is asked
        return [
            "evaluate", "--suite", f"muse:news@{muse}", "--suite", f"wmdp@{file}", "--model", str(taught.target),
            "--output", str(tmp_path / name),
        ]  # fmt: skip

    code, text = run(arguments("alone"))
    assert code == 0, text
    for ended in run_ranks(2, unlora, arguments("together")):
        assert ended.code == 0, ended.text
    for kept, score_file in (("target.jsonl", MUSE_FILE), ("wmdp/target.jsonl", WMDP_FILE)):
        alone, together = (score_file.load(tmp_path / name / "scores" / kept).sets for name in ("alone", "together"))
        assert alone.keys() == together.keys()
        for name, items in alone.items():
            for one, other in zip(items, together[name], strict=True):
                assert vars_of(other) == pytest.approx(vars_of(one), abs=1e-4, nan_ok=True)


def vars_of(item: Any) -> dict[str, Any]:
    """Numbers of an item one by one; what is no number is told apart by its text."""
    found: dict[str, Any] = {}
    for key, value in dataclasses.asdict(item).items():
        parts = value if isinstance(value, tuple) else (value,)
        for place, part in enumerate(parts):
            found[f"{key} {place}" if isinstance(part, float) else f"{key} {place} {part}"] = (
                part if isinstance(part, float) else 0.0
            )
    return found
