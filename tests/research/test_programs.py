"""The programs that make the tables of docs/results, on a tiny model, by the commands that the pages name."""

import json
import sys
from pathlib import Path

import pytest

from tests.tiny import save_tiny
from unlora_research import ranking, solvers


def test_ranking_of_every_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    model = save_tiny(tmp_path / "model")
    output = tmp_path / "ranking.json"
    asked = ["--model", model, "--examples", "6", "--passes", "1", "--seeds", "0", "--output", output]
    monkeypatch.setattr(sys, "argv", ["ranking", *map(str, asked)])
    ranking.main()
    (found,) = json.loads(output.read_text())["seeds"]
    assert found["module_count"] == 14
    assert all(-1 <= one["spearman"] <= 1 and 0 <= one["overlap"] <= 1 for one in found["ranking"].values())
    printed = capsys.readouterr().out
    assert [name for name in found["ranking"] if f"| {name}" not in printed] == []


def test_solvers_beside_the_row_solver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    model = save_tiny(tmp_path / "model")
    output = tmp_path / "solvers.json"
    asked = ["--model", model, "--layers", "0", "--ranks", "2", "--people", "2", "--json", output]
    monkeypatch.setattr(sys, "argv", ["solvers", *map(str, asked)])
    solvers.main()
    rows = json.loads(output.read_text())["modules"]
    assert len(rows) == 7
    for row in rows:
        assert row["ratios"]["row"] == 1
        # Its objective is the one that is measured, so nothing that solves another comes below it.
        assert row["ratios"]["elementwise"] <= min(row["ratios"][name] for name in ("plain", "row", "separable"))
    assert "rank 2: " in capsys.readouterr().out
