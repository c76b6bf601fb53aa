"""The programs that make the tables of docs/results, on a tiny model, by the commands that the pages name."""

import json
import sys
from pathlib import Path

import pytest

from tests.tiny import save_tiny
from unlora_research import experts, formats, ranking, solvers


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


def test_a_mixture_forgets_through_what_is_in_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked = [tmp_path, "--world", "0", "--recipe", "attention", "used_experts", "--quick"]
    monkeypatch.setattr(sys, "argv", ["experts", *map(str, asked)])
    experts.main()
    reaches = {}
    for name in ("attention", "used_experts"):
        record = json.loads((tmp_path / "world-0" / "runs" / name / "record.json").read_text())
        reaches[name] = record["reach"]["experts"]
    assert reaches["attention"] == 0 < reaches["used_experts"] < 4 * 2 * experts.QUICK["layers"]
    assert "| `used_experts` | 1 |" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_every_format_is_unlearned_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(sys, "argv", ["formats", str(tmp_path), "--world", "0", "--quick"])
    formats.main()
    everywhere = [number for number, one in enumerate(formats.FORMATS.values()) if one.module is None]
    runs = [json.loads((tmp_path / "world-0" / f"run-{number}" / "record.json").read_text()) for number in everywhere]
    assert [one["model"]["quantisation"] for one in runs] == [None, "8bit", "4bit", None, None, None, None]
    assert [one["model"]["multiplied_out"] for one in runs[3:]] == ["fp8", None, "mxfp4", "mxfp8"]
    printed = capsys.readouterr().out
    assert [name for name, one in formats.FORMATS.items() if one.runs and printed.count(f"| {name} |") != 2] == []
    left = [f"{name}: not run, {one.module} is not installed" for name, one in formats.FORMATS.items() if not one.runs]
    assert [line for line in left if line not in printed] == []
    assert json.loads((tmp_path / "world-0" / "handed-over-3.json").read_text())["merged"] < 1e-4
