"""Killed by SIGKILL anywhere and started again with the same command, a run ends with the same bits."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.recipes.processes import KILLED, KillAfterHalf, KillAt, Running, run, wait_for
from tests.taught import Taught
from unlora.training.callbacks import read_train_log
from unlora.training.checkpoints import last_complete_checkpoint

ADAPTER = Path("adapter") / "adapter_model.safetensors"
STEPS = 16


class Whole(NamedTuple):
    """A run that nobody interrupted."""

    adapter: bytes
    losses: list[float]


def command(taught: Taught, output: Path) -> list[str]:
    """NPO, because its reference log-probabilities are computed again after a resume."""
    return [
        "unlearn", "--model", str(taught.target), "--forget", str(taught.forget), "--retain", str(taught.retain),
        "--preset", "npo", "--set", "adapter.rank=4", "--set", "training.learning_rate=5e-3",
        "--set", f"training.epochs={STEPS}", "--set", "training.batch_size=2",
        "--set", "training.gradient_accumulation_steps=2", "--set", "training.save_steps=4",
        "--set", "evaluation.max_new_tokens=4", "--output", str(output),
    ]  # fmt: skip


def losses(run: Path) -> list[float]:
    """One for every step, in order."""
    lines = read_train_log(run / "train_log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


@pytest.fixture(scope="module")
def whole(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    code, text = run(command(taught, folder / "run"))
    assert code == 0, text
    return Whole((folder / "run" / ADAPTER).read_bytes(), losses(folder / "run"))


def assert_same(folder: Path, whole: Whole) -> None:
    """Finished, the same bits, no step twice or missing, nothing left over."""
    assert (folder / ADAPTER).read_bytes() == whole.adapter
    assert losses(folder) == whole.losses
    assert json.loads((folder / "record.json").read_text())["finished"] is True
    assert not (folder / "checkpoints").exists()
    assert not list(folder.glob(".*"))
    assert len(json.loads((folder / "evaluation.json").read_text())["models"]) == 2
    assert "not finished" not in (folder / "report.html").read_text()


def go_on(taught: Taught, folder: Path, whole: Whole) -> None:
    """The same command again."""
    code, text = run(command(taught, folder))
    assert code == 0, text
    assert_same(folder, whole)


def test_real_command_killed_in_the_middle_of_training_ends_with_the_same_adapter(
    taught: Taught, whole: Whole, tmp_path: Path
):
    folder, log = tmp_path / "run", tmp_path / "run" / "train_log.jsonl"
    arguments = [sys.executable, "-m", "unlora", *command(taught, folder)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: log.is_file() and log.read_text().count("\n") >= 6, lambda: process.poll() is None)
        process.kill()
    assert process.returncode == KILLED
    assert not (folder / "adapter").exists()
    assert len(read_train_log(log)) < STEPS
    go_on(taught, folder, whole)


def test_killed_after_some_steps(taught: Taught, whole: Whole, tmp_path: Path):
    """Between the second checkpoint and the third."""
    folder, log = tmp_path / "run", tmp_path / "run" / "train_log.jsonl"
    running = Running(command(taught, folder))
    running.wait_for(lambda: log.is_file() and log.read_text().count("\n") >= 9)
    running.kill()
    assert running.finish()[0] == KILLED
    assert not (folder / "adapter").exists()
    go_on(taught, folder, whole)


UNLEARN, STATE = "unlora.recipes.unlearn", "transformers.trainer_callback"
POINTS: dict[str, Callable[[], None]] = {
    "writing the configuration": KillAt("pathlib", "Path.replace", 1),
    "writing the importance map": KillAfterHalf("unlora.artifacts", "save_file"),
    "before the first step": KillAt("unlora.run.training", "UnlearnTrainer.train"),
    "a checkpoint, half of its state": KillAfterHalf(STATE, "TrainerState.save_to_json", 3),
    "after training, before the adapter": KillAt(UNLEARN, "save_trained_adapter"),
    "half of the adapter": KillAfterHalf("peft", "PeftModel.save_pretrained", 5),
    "evaluation": KillAt("unlora.run.suites", "once", 2),
    "the last line of the record": KillAt("unlora.run.folder", "RunFolder.finish"),
    "the report": KillAt(UNLEARN, "write_report"),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point(taught: Taught, whole: Whole, tmp_path: Path, point: str):
    folder = tmp_path / "run"
    code, text = run(command(taught, folder), POINTS[point])
    assert code == KILLED, text
    assert not (folder / "evaluation.json").exists() or point in ("the last line of the record", "the report")
    trained = (folder / ADAPTER).stat().st_mtime_ns if (folder / ADAPTER).exists() else None
    assert (trained is not None) == (point in ("evaluation", "the last line of the record", "the report"))
    if point.startswith("a checkpoint"):
        last = last_complete_checkpoint(folder / "checkpoints")
        assert (folder / "checkpoints" / "checkpoint-12").is_dir()
        assert last == folder / "checkpoints" / "checkpoint-8"
    go_on(taught, folder, whole)
    if trained is not None:
        assert (folder / ADAPTER).stat().st_mtime_ns == trained  # not trained again


def test_killed_twice(taught: Taught, whole: Whole, tmp_path: Path):
    folder = tmp_path / "run"
    for _ in range(2):
        sabotage = KillAt(STATE, "TrainerState.save_to_json", 2)
        assert run(command(taught, folder), sabotage)[0] == KILLED
    go_on(taught, folder, whole)
