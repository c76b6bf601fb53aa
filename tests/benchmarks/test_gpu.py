"""The command for a GPU, at toy size on the CPU: every part runs, or is said not to have."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import gpu


def test_every_part_runs_at_toy_size(tmp_path: Path):
    words = [sys.executable, "-m", "benchmarks.gpu", str(tmp_path), "--toy", "--seconds", "900"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    logs = {file.name: file.read_text()[-2000:] for file in tmp_path.glob("*.txt")}
    assert done.returncode == 0, (done.stdout, logs)
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert list(parts) == [part.name for part in gpu.PARTS if part.toy]
    assert all(outcome.startswith("done") for outcome in parts.values())
    for name in parts:
        assert json.loads((tmp_path / f"{name}.json").read_text())["machine"]["device"] == "cpu"
    whole = json.loads((tmp_path / "whole-7b.json").read_text())["whole"]
    assert {"training", "evaluation"} <= set(whole["stages"])
    assert whole["seconds"] > sum(stage["seconds"] for stage in whole["stages"].values())


def test_what_the_time_does_not_reach_is_named(tmp_path: Path):
    gpu.main([str(tmp_path), "--toy", "--seconds", "1"])
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert set(parts.values()) == {"left out: no time"}
