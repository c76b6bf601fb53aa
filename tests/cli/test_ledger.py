"""`unlora ledger` from the command line: what it says, and what is refused in one line."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.commands import QUICK, RETAIN, error_line, unlora, write_lines
from tests.cli.conftest import Inputs
from tests.taught import Taught
from unlora.level import hardly_forgotten
from unlora.recipes.ledger import status


def test_requests_from_the_command_line(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    book = tmp_path / "requests"
    begun = unlora("ledger", "init", book, "--model", inputs.model)
    assert begun.exit_code == 0, begun.output
    assert json.loads((book / "ledger.jsonl").read_text())["model"]["name"].startswith("..")
    added = unlora("ledger", "add", book, "--forget", inputs.forget, "--retain", inputs.retain, *QUICK)
    assert added.exit_code == 0, added.output
    said = re.search(r"request 1: answer probability (\d\.\d{3}) in the model, (\d\.\d{3}) now", added.stdout)
    assert said is not None
    assert f"adapter: {book / 'composed' / '1' / 'adapter'} (rank 8, of 1 request)" in added.stdout

    before = (book / "ledger.jsonl").read_bytes()
    line = error_line(unlora("ledger", "status", book, "--forget", inputs.forget, "--forget", inputs.forget))
    assert line == "error: --forget: gives the records of request 1 2 times; give them once."
    assert (book / "ledger.jsonl").read_bytes() == before
    shown = unlora("ledger", "status", book, "--forget", inputs.forget)
    assert shown.exit_code == 0, shown.output
    (row,) = [line.split() for line in shown.stdout.splitlines() if line.startswith("1 ")]
    assert row[2:7] == ["2", "yes", *said.groups(), said[2]]
    assert "(entry 2)" in shown.stdout
    for limit in ("BACK", "LEAST"):  # Whatever is there has come back.
        monkeypatch.setattr(status, limit, -1.0)
    alarmed = unlora("ledger", "status", book)
    assert alarmed.exit_code == 1
    assert "what was forgotten comes back: request 1 (0%); add the request again." in alarmed.stderr
    monkeypatch.undo()

    kept = unlora("ledger", "settle", book, "--forget", inputs.forget, "--level", 0.9)
    assert kept.exit_code == 0, kept.output
    assert re.search(rf"Answer probability {said[2]}, .* level of 0\.900; nothing is changed", kept.output)
    assert f"adapter: {book / 'composed' / '1' / 'adapter'} (rank 8, of 1 request)" in kept.stdout
    assert "aimed at no level; say one" in error_line(unlora("ledger", "settle", book, "--forget", inputs.forget))
    assert "not in the range" in unlora("ledger", "settle", book, "--forget", inputs.forget, "--level", 1).stderr

    assert unlora("ledger", "verify", book).stdout.endswith("unchanged\n")
    back = unlora("ledger", "rollback", book, 1)
    assert "no request is in force: the model is as it was, without an adapter" in back.stdout
    assert "no, entry 3" in unlora("ledger", "status", book).stdout
    (book / "requests" / "1" / "record.json").write_text("{}")
    changed = unlora("ledger", "verify", book)
    assert changed.exit_code == 1
    assert f"{book / 'requests' / '1' / 'record.json'}: changed since it was written" in changed.stdout


def test_a_ledger_goes_with_its_model_and_says_when_it_does_not(inputs: Inputs, tmp_path: Path):
    (tmp_path / "here").mkdir()
    model = inputs.model.rename(tmp_path / "here" / "model")
    book = tmp_path / "here" / "requests"
    assert unlora("ledger", "init", book, "--model", model).exit_code == 0
    model.rename(tmp_path / "elsewhere")
    words = ("ledger", "add", book, "--forget", inputs.forget, "--retain", inputs.retain, *QUICK)
    moved = f"error: model '{model}': no such folder; say where it is now with --model."
    assert error_line(unlora(*words)) == moved
    assert unlora(*words, "--model", tmp_path / "elsewhere").exit_code == 0
    for others in (("rollback", book, 1), ("status", book, "--forget", inputs.forget)):
        assert error_line(unlora("ledger", *others)) == moved
    assert unlora("ledger", "rollback", book, 1, "--model", tmp_path / "elsewhere").exit_code == 0
    (tmp_path / "elsewhere").rename(inputs.model)


def test_wrong_use_is_one_line(inputs: Inputs, tmp_path: Path):
    book = tmp_path / "requests"
    assert "Missing option '--model'" in unlora("ledger", "init", book).stderr
    for words in (("add", book, "--forget", inputs.forget), ("status", book), ("rollback", book, 1), ("verify", book)):
        line = error_line(unlora("ledger", *words))
        assert line.startswith(f"error: {book}: no ledger.jsonl; not a ledger.")
    assert not book.exists()
    assert unlora("ledger", "init", book, "--model", inputs.model).exit_code == 0
    assert "not empty; choose another folder" in error_line(unlora("ledger", "init", book, "--model", inputs.model))
    line = error_line(unlora("ledger", "rollback", book, 1))
    assert line == f"error: {book}: no request 1; the requests are: none yet."
    both = write_lines(tmp_path / "both.jsonl", RETAIN)
    same = ("ledger", "add", book, "--forget", both, "--retain", inputs.retain)
    assert "training would teach them again" in error_line(unlora(*same))
    assert "leave it out" in error_line(unlora(*same[:5], "--set", "model.quantisation=4bit", "--retain", both))
    assert [path.name for path in book.iterdir()] == ["ledger.jsonl"]


@pytest.mark.parametrize(
    ("target", "now", "hardly"),
    [
        (0.98, 0.979, True),
        (0.98, 0.99, True),  # the records are known better than before
        (0.98, 0.881, False),  # 10.1 % of 0.98 are gone
        (0.98, 0.883, True),  # 9.9 %
        (0.98, 0.1, False),
        (0.005, 0.005, False),  # there was nothing to take
    ],
)
def test_a_request_that_took_next_to_nothing_is_known(target: float, now: float, hardly: bool):
    assert hardly_forgotten(target, now) is hardly


def test_a_request_that_took_next_to_nothing_is_said(taught: Taught, tmp_path: Path):
    book = tmp_path / "requests"
    assert unlora("ledger", "init", book, "--model", taught.target).exit_code == 0
    words = ("--forget", taught.forget, "--retain", taught.retain, "--template", "plain", *QUICK)
    still = unlora("ledger", "add", book, *words, "--set", "training.learning_rate=1e-9")
    assert still.exit_code == 0, still.output
    assert f"request 1: hardly forgotten, and in force all the same. Take it out (unlora ledger rollback {book} 1)" in (
        still.stdout
    )
    assert "or a level (--set level.aim=0.1)" in still.stdout
    aimed = unlora("ledger", "add", book, *words, *("--set", "training.learning_rate=1e-9"), "--set", "level.aim=0.5")
    assert "request 2: hardly forgotten" in aimed.stdout
    assert "level.aim" not in aimed.stdout
