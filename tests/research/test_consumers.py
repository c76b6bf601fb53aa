"""Consumers score what was exported: those that every checkout installs, on a tiny run; a deaf one is caught."""

import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy
import pytest

from tests.taught import Taught
from unlora.recipes.unlearn import unlearn
from unlora_research.consumers import __main__ as command
from unlora_research.consumers import table
from unlora_research.consumers.subject import Subject
from unlora_research.consumers.table import CONSUMERS, Consumer
from unlora_research.consumers.trial import Tried


@pytest.fixture(scope="module")
def run(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("consumers") / "run"
    unlearn(taught.settings(model={"name": str(taught.target), "dtype": "float32"}), folder)
    return folder


def called(run: Path, output: Path, *words: str) -> tuple[int, list[dict]]:
    code = command.main([str(output), "--run", f"anchored={run}", "--answers", "3", *words])
    return code, json.loads((output / "consumers.json").read_text())


def test_what_every_checkout_installs_agrees(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "made" / "anew"
    code, rows = called(run, output, "--only", "PEFT", "transformers", "lm-eval")
    assert code == 0
    assert [row["form"] for row in rows] == [
        *("adapter", "adapter, merged by PEFT", "adapter", "model", "adapter (per answer)", "model (per answer)"),
    ]
    for row in rows:
        assert row["largest"] < 1e-4
        assert row["forget"][1] == pytest.approx(row["forget"][0], rel=1e-4)
        assert abs(row["back"]) < 1e-3
        assert row["known"] > row["forget"][0]
    printed = capsys.readouterr()
    assert printed.out.count("| anchored |") == 6
    assert "vLLM" in printed.err
    assert [path.name for path in output.iterdir()] == ["consumers.json"]


def test_a_model_to_teach_or_runs_but_not_both(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main([str(tmp_path / "out"), "--run", f"plain={run}", "--model", "embedded", "--only", "PEFT"]) == 2
    assert "error: --model and --run: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", ["runs/x", "=runs/x", "plain="])
def test_a_run_without_its_kind_is_refused(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        command.main([str(tmp_path / "out"), "--run", words])
    assert f"must be KIND=RUN, such as plain=runs/x (found '{words}')" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def deaf(subject: Subject) -> Iterator[Tried]:
    yield Tried("adapter", [numpy.full(len(one), -9.0) for one in subject.expected])
    yield Tried("model in q4_k_m", [one - 0.5 for one in subject.expected])


def test_a_consumer_that_differs_is_named_and_what_is_rounded_only_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(table.CONSUMERS, "PEFT", Consumer(("peft",), deaf))  # type: ignore[arg-type]
    code, rows = called(run, tmp_path, "--only", "PEFT")
    assert code == 1
    assert rows[1]["largest"] == pytest.approx(0.5)
    errors = capsys.readouterr().err
    assert "adapter: " in errors
    assert "q4_k_m: " not in errors


def test_what_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch):
    def version(name: str) -> str:
        if name in ("mlx", "mlx-lm"):
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(table, "version", version)
    assert {name: table.missing(name) for name in CONSUMERS if table.missing(name)} == {"MLX": 'mlx-lm "mlx[cpu]"'}
