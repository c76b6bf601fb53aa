"""No control character of a file, a name or an answer reaches the terminal or a page."""

import ast
import io
import json
import re
import sys
from pathlib import Path

import pytest

from tests.architecture.test_files import FILES, place
from tests.cli.commands import error_line, unlora, write_lines
from tests.cli.conftest import Inputs
from unlora.characters import replaced, visible, visible_json
from unlora.cli.console import ConsoleReporter
from unlora.cli.tables import print_answers, print_audit, print_evaluation
from unlora.report.page import page_environment

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b1m\x85\x7f\u202egnp.exe\u2066x\u2028\ud800\rb"
SHOWN = r"a\x1b[31mred\x1b]0;title\x07\x9b1m\x85\x7f\u202egnp.exe\u2066x\u2028\ud800\x0db"
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def test_every_control_character_is_shown_and_nothing_else_is_changed():
    assert visible(HOSTILE) == SHOWN
    every = "".join(map(chr, (*range(0x3000), *range(0xD700, 0xE100), *range(0x1D100, 0x1D200), 0x1F642)))
    kept = {character for character in every if visible(character) == character}
    assert len(every) - len(kept) == (32 - 2) + 33 + 7 + 4 + 2048
    assert all(character in kept for character in "\n\tЯ é\u200d\u200f𝄞🙂")


def test_json_keeps_its_value():
    value = {"text": HOSTILE, "more": ["\x9f", "é"]}
    text = visible_json(json.dumps(value, ensure_ascii=False))
    assert not UNSAFE.search(text)
    assert "é" in text
    assert json.loads(text) == value


def test_page_has_a_replacement_character():
    assert replaced("a\x1b[0m\0b\tc\n") == "a\ufffd[0m\ufffdb\tc\n"


def test_only_one_file_of_the_command_line_prints():
    for file in FILES:
        calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        printing = [call for call in calls if isinstance(call, ast.Attribute) and call.attr in ("echo", "secho")]
        assert bool(printing) == (place(file) == "unlora/cli/terminal.py")


def test_data_check_shows_what_a_record_hides(inputs: Inputs, tmp_path: Path):
    text = HOSTILE.replace("\ud800", "")
    file = write_lines(tmp_path / "hidden.jsonl", [{"question": text, "answer": text}])
    output = unlora("data", "check", file, "--model", inputs.model).stdout
    assert not UNSAFE.search(output)
    assert SHOWN.replace(r"\ud800", "") in output
    told = unlora("data", "check", file, "--model", inputs.model, "--json").stdout
    assert not UNSAFE.search(told)
    assert json.dumps(text)[1:-1] in json.dumps(json.loads(told))


def test_error_line_shows_them(inputs: Inputs, tmp_path: Path):
    file = write_lines(tmp_path / "key.jsonl", [{"question": "Who?", "answer": "I.", "k\x1b[2K\x9b\u202e": 1}])
    line = error_line(unlora("data", "check", file, "--model", inputs.model))
    assert r"k\x1b[2K\x9b\u202e" in line
    assert not UNSAFE.search(line)


@pytest.mark.parametrize("arguments", [("data", "check", "x\x1b[2Ky"), ("report", "x\x1b[2Ky"), ("plan", "x\x1b[2Ky")])
def test_name_of_a_file_shows_them(arguments: tuple[str, ...]):
    assert r"x\x1b[2Ky" in error_line(unlora(*arguments))


def test_usage_error_shows_them():
    result = unlora("audit", "run", "--attack", "x\x9b\x1b[2Ky")
    assert result.exit_code == 2
    assert not UNSAFE.search(result.output)


def test_answers_tables_and_notes_show_them(capsys: pytest.CaptureFixture[str]):
    print_answers("Forgotten", [(HOSTILE, HOSTILE, HOSTILE, HOSTILE)])
    measured = {"value": 0.5, "standard_error": None}
    missing = {"value": None, "standard_error": None, "note": f"because {HOSTILE}"}
    print_evaluation({"models": {f"[b]{HOSTILE}": {"metrics": {"[red]m": measured, HOSTILE: missing}}}})
    found = {"outcome": "holds", "sentence": f"[red]{HOSTILE}"}
    print_audit({"attacks": {HOSTILE: found}, "verdict": HOSTILE, "scope": HOSTILE})
    output = capsys.readouterr().out
    assert not UNSAFE.search(output)
    assert "[red]m" in output
    assert output.count(r"\x1b]0;title\x07") >= 10


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_them(monkeypatch: pytest.MonkeyPatch, terminal: bool):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "300")
    reporter = ConsoleReporter()
    reporter.say(HOSTILE)
    with reporter.task(f"[b]{HOSTILE}", 2) as task:
        task.advance(1, HOSTILE)
        task.update(HOSTILE, 2, 2)
    written = stream.getvalue()
    assert written.count(r"\x1b]0;title\x07") >= 3
    assert not re.search("\x1b\\]|\x1b\\[31mred|[\x07\x80-\x9f\u202a-\u202e]", written)


def test_templates_of_pages_have_none():
    environment = page_environment()
    sources = [environment.loader.get_source(environment, name)[0] for name in environment.list_templates()]  # type: ignore[union-attr]
    assert not any(map(UNSAFE.search, sources))
