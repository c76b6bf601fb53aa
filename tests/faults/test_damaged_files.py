"""A file of a run that was cut short is named in one clear line; without it, the same command makes it again."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.faults.test_kills import command, contents
from tests.recipes.processes import run
from tests.taught import Taught


@pytest.fixture(scope="module")
def whole(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    code, text = run(command(taught, folder))
    assert code == 0, text
    return folder


@pytest.mark.parametrize(
    ("name", "evaluated", "remedy"),
    [
        ("importance.safetensors", False, "importance.safetensors"),
        ("adapter/adapter_model.safetensors", True, "adapter"),
        ("adapter/adapter_model.safetensors", False, "adapter"),
        ("adapter/adapter_config.json", True, "adapter"),
        ("scores/target.jsonl", False, "scores/target.jsonl"),
        ("scores/unlearned.jsonl", False, "scores/unlearned.jsonl"),
        ("evaluation.json", True, "evaluation.json"),
    ],
)
def test_cut_file_is_named_and_made_again(
    taught: Taught,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    evaluated: bool,
    remedy: str,
):
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    if not evaluated:
        (folder / "evaluation.json").unlink()
    os.truncate(folder / name, (folder / name).stat().st_size // 2)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code, text = run(command(taught, folder))
    assert code == 2, text
    assert "Traceback" not in text
    last = text.splitlines()[-1]
    assert last.startswith(f"error: {folder / name}")
    untouched = {path for path in before if path.name not in ("record.json", "run")}
    assert all(path.stat().st_mtime_ns == before[path] for path in untouched)

    place = folder / remedy
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    code, text = run(command(taught, folder))
    assert code == 0, text
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize(
    ("name", "message"), [("record.json", "not valid JSON"), ("config.yaml", "not valid YAML|holds another run")]
)
def test_cut_description_of_a_run_is_refused(taught: Taught, whole: Path, tmp_path: Path, name: str, message: str):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    os.truncate(folder / name, (folder / name).stat().st_size // 2)
    code, text = run(command(taught, folder))
    assert code == 2, text
    assert text.startswith(f"error: {folder}")
    assert re.search(message, text)  # where the cut falls depends on the length of a path
    assert text.count("\n") == 1
