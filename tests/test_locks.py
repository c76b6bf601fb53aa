"""The lock of a folder that is worked in."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from unlora.errors import InputError
from unlora.locks import alone_in, alone_in_output, entries, remove_left_locks

FORK = multiprocessing.get_context("fork")


def hold(path: Path, ready: Any) -> None:
    with alone_in(path):
        ready.set()
        signal.pause()


@pytest.fixture
def holder(request: pytest.FixtureRequest, tmp_path: Path):
    """A process that holds the lock of tmp_path/a/run."""
    ready = FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path / "a" / "run", ready))
    process.start()
    assert ready.wait(30)
    yield process
    process.kill()
    process.join()


def test_second_process_is_refused_at_once_and_after_a_kill_it_works(holder: Any, tmp_path: Path):
    run = tmp_path / "a" / "run"
    with pytest.raises(InputError) as refused, alone_in(run):
        pass
    expected = f"{run}: another process (PID {holder.pid}) works here; wait for it or choose another --output."
    assert str(refused.value) == expected
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(InputError, match="another process"), alone_in(tmp_path / "link" / "run"):
        pass
    with alone_in(tmp_path / "a" / "other"):
        pass
    holder.kill()
    holder.join()
    assert len(list((tmp_path / "a").iterdir())) == 1  # left by the kill
    assert entries(tmp_path / "a") == []
    with alone_in(run):
        run.mkdir()
    assert list((tmp_path / "a").iterdir()) == [run]


def test_waits_for_one_that_ends(holder: Any, tmp_path: Path):
    with pytest.raises(InputError), alone_in(tmp_path / "a" / "run", patience=0.2):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    with alone_in(tmp_path / "a" / "run", patience=30.0):
        pass


def test_nothing_is_left_where_nothing_was_made(tmp_path: Path):
    with alone_in(tmp_path / "a" / "b" / "run"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="stop"), alone_in(tmp_path / "a" / "run"):
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def test_what_others_have_put_there_stays(tmp_path: Path):
    with alone_in(tmp_path / "a" / "b" / "run"):
        (tmp_path / "a" / "notes").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["notes"]


def test_left_locks_are_removed_and_held_ones_are_not(holder: Any, tmp_path: Path):
    left = tmp_path / "a" / ".unlora-0123456789abcdef.lock"
    left.write_text("1 nowhere")
    assert len(list((tmp_path / "a").iterdir())) == 2
    remove_left_locks(tmp_path / "a")
    (kept,) = (tmp_path / "a").iterdir()
    assert kept != left


def test_other_processes_of_one_run_do_not_lock(holder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with alone_in(tmp_path / "a" / "run"):
        pass
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(InputError, match="another process"), alone_in(tmp_path / "a" / "run"):
        pass


def test_holder_on_another_machine_is_named_with_it(holder: Any, tmp_path: Path):
    (lock,) = (tmp_path / "a").iterdir()
    lock.write_text("17 elsewhere")
    with (
        pytest.raises(InputError, match=r"another process \(PID 17 on elsewhere\) works here"),
        alone_in(tmp_path / "a" / "run"),
    ):
        pass
    lock.write_text("")
    with pytest.raises(InputError, match="another process works here"), alone_in(tmp_path / "a" / "run"):
        pass


def test_folder_of_one_s_own_in_a_read_only_one_has_its_lock_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path)
    with alone_in(run):
        assert entries(run) == []
        assert len(list(run.iterdir())) == 1
        with pytest.raises(InputError, match="another process"), alone_in(run):
            pass
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_where_nothing_can_be_written_the_work_itself_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    def refuse(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with alone_in(tmp_path / "run"):
        pass
    monkeypatch.undo()
    monkeypatch.setattr("fcntl.flock", refuse)
    with alone_in(tmp_path / "run"):
        pass


def test_recipe_locks_its_output_however_that_is_given(holder: Any, tmp_path: Path):
    @alone_in_output
    def recipe(settings: int, output: Path, *, more: int = 0) -> int:
        return settings + more

    assert recipe(1, tmp_path / "x", more=2) == recipe(1, output=tmp_path / "x", more=2) == 3
    for refused in (lambda: recipe(1, tmp_path / "a" / "run"), lambda: recipe(1, output=tmp_path / "a" / "run")):
        with pytest.raises(InputError, match="another process"):
            refused()
