"""Files and folders take the user's umask, whoever writes them."""

import functools
import os
import stat
from pathlib import Path

import pytest

from tests.faults.test_kills import command
from tests.recipes.processes import run
from tests.taught import Taught
from unlora.artifacts import write_text
from unlora.models.save import new_folder


def modes_below(folder: Path) -> dict[str, set[int]]:
    """Permissions of all files and of all folders."""
    found: dict[str, set[int]] = {"files": set(), "folders": {stat.S_IMODE(folder.stat().st_mode)}}
    for path in folder.rglob("*"):
        found["folders" if path.is_dir() else "files"].add(stat.S_IMODE(path.stat().st_mode))
    return found


@pytest.fixture(params=[0o077, 0o027, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_whatever_is_written_whole(umask: int, tmp_path: Path):
    write_text(tmp_path / "new" / "a" / "text.txt", "x")
    with new_folder(tmp_path / "new" / "model") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").touch()
        (temporary / "file").touch(mode=0o777)
    assert modes_below(tmp_path / "new") == {"files": {0o666 & ~umask}, "folders": {0o777 & ~umask}}


def test_a_whole_run_and_what_it_leaves_in_the_cache(taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Both hold the forget set and what was said about it."""
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "cache"))
    code, text = run(command(taught, tmp_path / "run"), functools.partial(os.umask, 0o077))
    assert code == 0, text
    for folder in (tmp_path / "run", tmp_path / "cache"):
        assert modes_below(folder) == {"files": {0o600}, "folders": {0o700}}
