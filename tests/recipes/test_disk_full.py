"""No space left: one clear line, exit code 1, nothing half-written, and the same command goes on afterwards.

A limit on the size of files stands in for a full disk; it fails at the same places with another error number.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.recipes.processes import LimitFiles, run
from tests.recipes.test_resume import ADAPTER
from tests.taught import Taught
from unlora.training.checkpoints import last_complete_checkpoint

STEPS = 8


def command(taught: Taught, output: Path) -> list[str]:
    return [
        "unlearn", "--preset", "marginal",
        "--model", str(taught.target), "--forget", str(taught.forget), "--retain", str(taught.retain),
        "--set", "adapter.rank=4", "--set", "adapter.alpha=8", "--set", "training.learning_rate=5e-3",
        "--set", f"training.epochs={STEPS}", "--set", "training.batch_size=4", "--set", "training.save_steps=3",
        "--set", "objective.retain_weight=1.3", "--set", "evaluation.max_new_tokens=12", "--output", str(output),
    ]  # fmt: skip


SAVER = ("unlora.recipes.unlearn", "save_trained_adapter")
PLACES: dict[str, Callable[[], None]] = {
    "the configuration": LimitFiles(500),
    "the importance map": LimitFiles(3_000),
    "the adapter of a checkpoint": LimitFiles(33_000),
    "the optimiser of a checkpoint": LimitFiles(80_000),
    "the adapter": LimitFiles(20_000, *SAVER),
    "the scores": LimitFiles(1_000, "unlora.recipes.unlearn", "evaluate_suites"),
    "the evaluation": LimitFiles(1_000, "unlora.run.suites", "evaluation_record"),
    "the last line of the record": LimitFiles(100, "unlora.run.folder", "RunFolder.finish"),
    "the report": LimitFiles(1_000, "unlora.recipes.unlearn", "write_report"),
}
AFTER_TRAINING = ("the scores", "the evaluation", "the last line of the record", "the report")


@pytest.mark.parametrize("place", PLACES)
def test_full_disk_is_one_line_and_the_same_command_goes_on(
    taught: Taught, finished_run: Path, tmp_path: Path, place: str
):
    folder = tmp_path / "run"
    code, text = run(command(taught, folder), PLACES[place])
    assert code == 1, text
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert lines == [text.splitlines()[-1]]
    assert str(folder) in lines[0]
    assert "no space" in lines[0]
    assert lines[0].endswith("; free some and start the same command again.")
    assert not list(folder.rglob(".*"))
    if place in AFTER_TRAINING:
        assert (folder / ADAPTER).read_bytes() == (finished_run / ADAPTER).read_bytes()
    else:
        assert not (folder / "adapter").exists()
    if place.endswith("of a checkpoint"):
        assert (folder / "checkpoints" / "checkpoint-3").is_dir()
        assert last_complete_checkpoint(folder / "checkpoints") is None
    assert (folder / "evaluation.json").exists() == (place in AFTER_TRAINING[2:])
    code, text = run(command(taught, folder))
    assert code == 0, text
    assert json.loads((folder / "record.json").read_text())["finished"] is True
    assert "not finished" not in (folder / "report.html").read_text()
    for name in (ADAPTER, "evaluation.json", "scores/target.jsonl", "scores/unlearned.jsonl"):
        assert (folder / name).read_bytes() == (finished_run / name).read_bytes()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_fine_tuning_on_a_full_disk_leaves_no_model(taught: Taught, tmp_path: Path, method: str):
    arguments = [
        "finetune", "--model", str(taught.target), "--data", str(taught.retain), "--epochs", "1", "--method", method,
        "--set", "rank=4", "--output", str(tmp_path / "out"),
    ]  # fmt: skip
    code, text = run(arguments, LimitFiles(10_000))
    assert code == 1, text
    assert "Traceback" not in text
    assert text.splitlines()[-1].startswith(f"error: {tmp_path / 'out'}")
    assert list((tmp_path / "out").glob("*")) == []
    code, text = run(arguments)
    assert code == 0, text
