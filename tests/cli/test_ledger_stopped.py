"""A ledger whose command is killed: it verifies at every moment, and nothing is lost."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.commands import QUICK, RETAIN, unlora, write_lines
from tests.cli.conftest import Inputs
from tests.faults.events import KillAtChange
from unlora.ledger.book import Ledger
from unlora.recipes.ledger.roll_back import roll_back
from unlora.recipes.ledger.verify import verify_ledger
from unlora.run.settings import ModelSettings

MOST_CHANGES = 60


@pytest.fixture
def book(inputs: Inputs, tmp_path: Path) -> Path:
    """Two requests, and their model beside them."""
    shutil.copytree(inputs.model, tmp_path / "model")
    place = tmp_path / "requests"
    tomas, lena = (
        write_lines(tmp_path / f"{name}.jsonl", part) for name, part in (("t", RETAIN[:2]), ("l", RETAIN[2:]))
    )
    assert unlora("ledger", "init", place, "--model", tmp_path / "model").exit_code == 0
    for forget in (inputs.forget, tomas):
        words = ("--forget", forget, "--retain", lena, *QUICK, "--set", "evaluation.skip=true")
        added = unlora("ledger", "add", place, *words)
        assert added.exit_code == 0, added.output
    return place


def roll_back_and_die(book: Path, changes: int) -> bool:
    """Take the first request back in a process that is killed before its `changes`-th change of the ledger; whether
    it was.
    """
    child = os.fork()
    if child == 0:
        KillAtChange([book], changes)()
        roll_back(book, 1, ModelSettings(name=str(book.parent / "model")))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_before_each_change_of_a_file_it_verifies_and_goes_on(book: Path, tmp_path: Path):
    whole = (book / "ledger.jsonl").read_text()
    finished = []
    for changes in range(1, MOST_CHANGES):
        copy = tmp_path / f"copy-{changes}"
        shutil.copytree(tmp_path / "model", copy / "model")
        place = Path(shutil.copytree(book, copy / "requests"))
        killed = roll_back_and_die(place, changes)
        assert verify_ledger(place).faults == []
        assert (place / "ledger.jsonl").read_text().startswith(whole)
        finished.append(Ledger(place).rolled_back == {1: 3})
        if not finished[-1]:
            roll_back(place, 1, ModelSettings(name=str(copy / "model")))
        present = Ledger(place).composed
        assert present is not None
        assert present.of == [2]
        assert verify_ledger(place).faults == []
        if not killed:
            break
    assert finished[-1]
    assert finished.index(True) > 5  # changes before the entry is there
    assert finished == sorted(finished)
