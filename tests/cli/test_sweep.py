"""`unlora sweep` refuses in one line, before anything is written."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from tests.cli.commands import error_line, unlora
from tests.cli.conftest import Inputs

SEARCH = {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


def config(folder: Path, inputs: Inputs, **changes: object) -> Path:
    run = {
        "model": {"name": str(inputs.model)},
        "data": {"forget": str(inputs.forget), "retain": str(inputs.retain)},
        "level": {"aim": 0.1},
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({"settings": run, "search": SEARCH} | changes), encoding="utf-8")
    return file


def test_without_the_extra_it_says_what_to_install(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "optuna" else found(name, *more)
    )
    line = error_line(unlora("sweep", config(tmp_path, inputs), "--output", tmp_path / "out"))
    assert line == "error: unlora sweep needs optuna: pip install 'unlora[sweep]'."


def test_wrong_input_is_one_line_and_nothing_is_written(inputs: Inputs, tmp_path: Path):
    pytest.importorskip("optuna")
    out = tmp_path / "out"
    file = config(tmp_path, inputs, sampler="tpee")
    assert error_line(unlora("sweep", file, "--output", out)).startswith(f"error: {file}: sampler: must be")
    file = config(tmp_path, inputs)
    few = error_line(unlora("sweep", file, "--output", out))
    assert few == (
        "error: evaluation.forget: a sweep chooses on half of the forget questions and reports on the other half, and "
        "needs 4 or more (found 2)."
    )
    assert "no such file" in error_line(
        unlora("sweep", file, "--set", f"settings.data.forget={tmp_path / 'none.jsonl'}", "--output", out)
    )
    assert not out.exists()


def test_a_folder_of_something_else_is_refused(inputs: Inputs, tmp_path: Path):
    pytest.importorskip("optuna")
    file = config(tmp_path, inputs)
    for name in ("forget", "retain"):  # enough questions
        source = getattr(inputs, name).read_text("utf-8")
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(source.replace("?", f" in {year}?") for year in range(1990, 1994))
        )
    words = [f"settings.data.{name}={tmp_path / name}.jsonl" for name in ("forget", "retain")]
    more = [word for one in words for word in ("--set", one)]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    line = error_line(unlora("sweep", file, *more, "--output", tmp_path / "out"))
    assert (
        line == f"error: {tmp_path / 'out'}: not empty and not a sweep of unlora (thesis.tex); choose another --output."
    )
    (tmp_path / "out" / "thesis.tex").unlink()
    (tmp_path / "out" / "config.yaml").write_text("sweep: {}\n")
    assert "holds another sweep" in error_line(unlora("sweep", file, *more, "--output", tmp_path / "out"))
