"""train_log.jsonl after a kill."""

import json
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from unlora.training.callbacks import TrainLog, read_train_log


def line(step: int) -> str:
    return json.dumps({"step": step, "loss": 1.0, "seconds": step * 1.5}) + "\n"


def test_line_cut_by_a_kill_is_dropped(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text(line(1) + line(2) + line(3)[:-7])
    assert [entry["step"] for entry in read_train_log(tmp_path / "log.jsonl")] == [1, 2]
    assert read_train_log(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(("resumed_at", "kept"), [(0, []), (2, [1, 2]), (9, [1, 2, 3])])
def test_resumed_log_goes_on_after_the_checkpoint(tmp_path: Path, resumed_at: int, kept: list[int]):
    """Lines after the checkpoint would come twice; seconds go on from those that are kept."""
    path = tmp_path / "log.jsonl"
    path.write_text(line(1) + line(2) + line(3) + '{"step": 4, "lo')
    log, state = TrainLog(path), TrainerState(global_step=resumed_at)
    arguments, control = TrainingArguments(output_dir=str(tmp_path / "out"), report_to="none"), TrainerControl()
    log.on_train_begin(arguments, state, control)
    assert [entry["step"] for entry in read_train_log(path)] == kept
    state.global_step = 10
    log.on_log(arguments, state, control, logs={"loss": 0.5, "grad_norm": 2.0, "epoch": 0.1})
    log.on_log(arguments, state, control, logs={"train_runtime": 3.0})
    last = read_train_log(path)[-1]
    assert {"step": 10, "loss": 0.5, "grad_norm": 2.0} == {key: last[key] for key in last if key != "seconds"}
    assert 1.5 * len(kept) <= last["seconds"] < 1.5 * len(kept) + 1
