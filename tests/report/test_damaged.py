"""Files of a run that parse and hold something else end in one line that names a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.report.made_run import make_run
from unlora.errors import InputError
from unlora.report import write_report
from unlora.training.callbacks import read_train_log
from unlora.training.checkpoints import last_complete_checkpoint, remove_damaged_checkpoints

DAMAGES: list[tuple[str, Any]] = [
    ("record.json", {"stages": 5}),
    ("record.json", {"stages": {"training": {"seconds": "long"}}}),
    ("record.json", {"model": {"fingerprint": 7}}),
    ("record.json", {"versions": {}}),
    ("record.json", {"checks": {"output_at_step_0": {"largest_difference": 1.0}}}),
    ("record.json", {"importance": {"statistic": 3}}),
    ("record.json", {"data": [1]}),
    ("evaluation.json", {"models": {"target": {"metrics": {"forget_probability": {"value": "x"}}}}}),
    ("evaluation.json", {"models": []}),
    ("evaluation.json", {"models": {}}),
    ("audit/audit.json", {"verdict": 1}),
    ("audit/audit.json", []),
]


@pytest.mark.parametrize(("name", "change"), DAMAGES)
def test_damage_that_parses_is_one_line(tmp_path: Path, name: str, change: Any):
    make_run(tmp_path)
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    kept = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(kept | change if isinstance(change, dict) else change))
    with pytest.raises(InputError) as raised:
        write_report(tmp_path)
    assert Path(name).name in str(raised.value)
    assert "\n" not in str(raised.value)


LINES = {
    "bytes": b"\xff\xfe",
    "text": b'{"step": "one"}',
    "deep": b"[" * 50_000,
    "long": b'{"a": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("line", LINES)
def test_damaged_log_is_one_line_for_a_page_and_ends_there_for_a_run(tmp_path: Path, line: str):
    make_run(tmp_path)
    log = tmp_path / "train_log.jsonl"
    log.write_bytes(b'{"step": 1, "seconds": 1.0}\n' + LINES[line] + b"\n")
    with pytest.raises(InputError, match=r"train_log\.jsonl"):
        write_report(tmp_path)
    assert [one["step"] for one in read_train_log(log)] == [1]


def test_folders_that_only_look_like_checkpoints_are_left_alone(tmp_path: Path):
    for name in ("checkpoint-abc", "checkpoint-", "checkpoint-1-2"):
        (tmp_path / name).mkdir()
    assert last_complete_checkpoint(tmp_path) is None
    assert remove_damaged_checkpoints(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 3
