"""A folder that cannot be written: one clear line before any work, and nothing left behind.

Root may write where permissions forbid it, so the system's refusal is played where a test cannot bring it about.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_kills import command, contents
from tests.recipes.processes import run
from tests.taught import Taught
from unlora.artifacts import refuse_unwritable
from unlora.errors import InputError, UnloraError

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class ReadOnly:
    """Refuses, as a file system that is mounted read-only does, whatever would change `folder`.

    Run in the process itself, as a sabotage.
    """

    def __init__(self, folder: Path, number: int = errno.EROFS) -> None:
        self.folder, self.number = str(folder), number

    def __call__(self) -> None:
        for name in ("open", "mkdir", "rename", "replace", "unlink"):
            setattr(os, name, self._refusing(name, getattr(os, name)))

    def _refusing(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def refusing(path: Any, *arguments: Any, **options: Any) -> Any:
            changes = name != "open" or arguments[0] & WRITING
            if changes and isinstance(path, str | Path) and str(path).startswith(self.folder):
                raise OSError(self.number, os.strerror(self.number), str(path))
            return original(path, *arguments, **options)

        return refusing


def refused(taught: Taught, output: Path, sabotage: ReadOnly | None = None) -> str:
    """The one line that is said; the model was not even loaded."""
    code, text = run(command(taught, output), sabotage)
    assert code == 2, text
    assert text.count("\n") == 1
    assert text.startswith(f"error: {output}: ")
    assert text.endswith("; choose another --output.\n")
    return text


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_new_folder_below_a_read_only_one_is_refused(taught: Taught, tmp_path: Path, number: int):
    parent = tmp_path / "parent"
    parent.mkdir()
    text = refused(taught, parent / "a" / "run", ReadOnly(parent, number))
    assert f"cannot be written in {parent} ({os.strerror(number)})" in text
    assert list(parent.iterdir()) == []


def test_run_that_has_become_read_only_is_refused_and_goes_on_when_it_is_not(taught: Taught, tmp_path: Path):
    folder = tmp_path / "run"
    code, text = run([*command(taught, folder), "--set", "evaluation.skip=true"])
    assert code == 0, text
    (folder / "importance.safetensors").unlink()  # something to do again
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, text = run([*command(taught, folder), "--set", "evaluation.skip=true"], ReadOnly(folder))
    assert (code, text) == (
        2,
        f"error: {folder}: cannot be written ({os.strerror(errno.EROFS)}); choose another --output.\n",
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    code, text = run([*command(taught, folder), "--set", "evaluation.skip=true"])
    assert code == 0, text
    assert (folder / "importance.safetensors").is_file()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no place where even root can make nothing")
def test_place_that_the_system_itself_refuses(taught: Taught):
    assert "cannot be written in /proc" in refused(taught, Path("/proc/run"))


class ReadOnlyLater:
    """Makes a folder read-only when a function is called for the first time."""

    def __init__(self, folder: Path) -> None:
        self.read_only = ReadOnly(folder)

    def __call__(self) -> None:
        from unlora.recipes import unlearn

        original = unlearn.evaluate_suites

        def hit(*arguments: Any, **options: Any) -> Any:
            self.read_only()
            return original(*arguments, **options)

        unlearn.evaluate_suites = hit


def test_run_that_becomes_read_only_while_it_works_goes_on_afterwards(taught: Taught, tmp_path: Path):
    """As when the network drive of a cluster is lost."""
    folder = tmp_path / "run"
    code, text = run(command(taught, folder), ReadOnlyLater(folder))
    assert code == 1, text
    assert "Traceback" not in text
    assert text.splitlines()[-1].startswith(f"error: {folder}/scores")
    assert f"cannot be written ({os.strerror(errno.EROFS)})" in text.splitlines()[-1]
    code, text = run(command(taught, folder))
    assert code == 0, text
    code, text = run(command(taught, tmp_path / "whole"))
    assert code == 0, text
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "arguments",
    [
        ["finetune", "--data", "RETAIN"],
        ["importance", "--forget", "FORGET", "--retain", "RETAIN"],
        ["evaluate", "--forget", "FORGET", "--retain", "RETAIN"],
        ["sequence", "--forget", "FORGET", "--retain", "RETAIN"],
    ],
)
def test_every_command_that_writes_refuses_it(taught: Taught, tmp_path: Path, arguments: list[str]):
    output = tmp_path / "out"
    words = [{"FORGET": str(taught.forget), "RETAIN": str(taught.retain)}.get(word, word) for word in arguments]
    code, text = run([*words, "--model", str(taught.target), "--output", str(output)], ReadOnly(tmp_path))
    assert code == 2, text
    assert text.splitlines()[-1].startswith(f"error: {output}")
    assert f"cannot be written in {tmp_path} ({os.strerror(errno.EROFS)}); choose another --output." in text
    assert "Loading" not in text
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(UnloraError, match="no space left") as raised:
        refuse_unwritable(tmp_path)
    assert not isinstance(raised.value, InputError)


def test_looking_leaves_no_trace(tmp_path: Path):
    before = tmp_path.stat().st_mtime_ns
    refuse_unwritable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    assert tmp_path.stat().st_mtime_ns == before
