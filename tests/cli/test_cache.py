"""`unlora cache`: what lies there, and exactly that is removed which was named."""

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.cli.commands import error_line, unlora
from tests.taught import Taught
from unlora.recipes.audit import audit
from unlora.recipes.evaluate import evaluate_checkpoint
from unlora.run.presets import resolve_audit
from unlora.run.settings import EvaluateSettings


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with something of every kind, and something that is not unlora's."""
    folder = tmp_path / "cache"
    for name, size in (
        ("scores/a.jsonl", 100),
        ("scores/b.jsonl", 50),
        ("audit/x.json", 7),
        ("notes.txt", 3),
        ("smollm2-135m-instruct-1/model.safetensors", 1000),
        ("small_world/1/target/m", 20),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    old = time.time() - 40 * 86400
    os.utime(folder / "scores" / "b.jsonl", (old, old))
    monkeypatch.setenv("UNLORA_CACHE", str(folder))
    return folder


def left(cache: Path) -> set[str]:
    return {path.relative_to(cache).as_posix() for path in cache.rglob("*") if not path.is_dir()}


def test_what_is_there_is_counted(cache: Path):
    lines = unlora("cache", "ls").stdout.splitlines()
    table = {line.split()[0]: line.split()[1:3] for line in lines[1:-1]}
    assert table == {"scores": ["2", "150"], "audit": ["1", "7"], "models": ["1", "1,000"], "small_world": ["1", "20"]}
    assert "0.0 to 40.0" in lines[1]
    assert lines[-1] == f"folder: {cache}"


EVERYTHING = {"scores/a.jsonl", "scores/b.jsonl", "audit/x.json", "smollm2-135m-instruct-1/model.safetensors",
              "small_world/1/target/m"}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "removed", "size"),
    [
        (("scores",), {"scores/a.jsonl", "scores/b.jsonl"}, "150"),
        (("scores", "audit"), {"scores/a.jsonl", "scores/b.jsonl", "audit/x.json"}, "157"),
        (("--older-than", "30"), {"scores/b.jsonl"}, "50"),
        (("audit", "--older-than", "30"), set(), "0"),
        (("--all",), EVERYTHING, "1,177"),
    ],
)
def test_exactly_what_is_named_is_removed(cache: Path, words: tuple[str, ...], removed: set[str], size: str):
    before = left(cache)
    result = unlora("cache", "rm", *words)
    assert result.exit_code == 0, result.output
    assert before - left(cache) == removed
    assert result.stdout.splitlines()[-1] == f"removed: {len(removed)} entries, {size} bytes"


def test_links_are_not_followed(cache: Path, tmp_path: Path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("x" * 500)
    (cache / "scores" / "link").symlink_to(mine)
    shutil.rmtree(cache / "audit")
    (cache / "audit").symlink_to(mine)
    (cache / "small_world" / "1" / "link").symlink_to(mine)
    assert unlora("cache", "rm", "--all").exit_code == 0
    assert (mine / "file").read_text() == "x" * 500
    assert left(cache) == {"notes.txt"}
    assert (cache / "audit").is_symlink()


def test_wrong_use_is_refused(cache: Path, tmp_path: Path):
    before = left(cache)
    assert "say what to remove" in unlora("cache", "rm").stderr
    assert error_line(unlora("cache", "rm", "score")) == "error: 'score': no kind of the cache. Did you mean 'scores'?"
    assert "not a run folder" in error_line(unlora("cache", "rm", "--run", tmp_path))
    assert left(cache) == before


def test_an_empty_and_an_impossible_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "none"))
    assert unlora("cache", "ls").exit_code == 0
    assert unlora("cache", "rm", "--all").stdout == "removed: 0 entries, 0 bytes\n"
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "file"))
    assert "is a file; UNLORA_CACHE names a folder" in error_line(unlora("cache", "ls"))
    monkeypatch.setenv("UNLORA_CACHE", "~nosuchuser")
    assert "no home folder" in error_line(unlora("cache", "ls"))


def test_texts_of_a_run_are_removed_and_those_of_others_stay(
    finished_run: Path, taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "cache"))
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    overrides = ["sampling.samples=1", "sampling.k=[1]", "sampling.max_new_tokens=2"]
    audit(run, resolve_audit(scale="default", flags={"attacks": ["sampling"]}, overrides=overrides), run / "audit")
    values = {"model": {"name": str(taught.target)}, "evaluation": {"max_new_tokens": 2}}
    for forget, retain in ((taught.forget, taught.retain), (taught.retain, None)):
        data = {"forget": str(forget), "retain": str(retain) if retain else None}
        evaluate_checkpoint(EvaluateSettings.from_mapping(values | {"data": data}), tmp_path / f"e{retain is None}")
    cache = tmp_path / "cache"
    assert "Mira" in "".join(path.read_text() for path in cache.rglob("*.json*"))
    result = unlora("cache", "rm", "--run", run)
    assert result.exit_code == 0, result.output
    kept = "".join(path.read_text() for path in cache.rglob("*.json*"))
    question = taught.forget.read_text().split('"question": "')[1].split('"')[0]
    assert question not in kept
    assert len(list((cache / "scores").iterdir())) == 1
    assert not list((cache / "audit").iterdir())
