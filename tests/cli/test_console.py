"""Progress: a bar on a terminal, a line now and then in a log; results never share their stream."""

import io
import sys

import pytest
from rich.console import Console

from unlora.cli import console
from unlora.cli.console import ConsoleReporter


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that progress lines look at."""
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def test_log_gets_a_line_every_ten_seconds_and_one_at_the_end(clock: Clock, capsys: pytest.CaptureFixture[str]):
    with ConsoleReporter().task("Unlearning", 200) as task:
        for step in range(200):
            clock.now += 0.125
            task.advance(1, f"loss {step}")
    assert capsys.readouterr().err.splitlines() == [
        "Unlearning 80/200 loss 79 (10 s)",
        "Unlearning 160/200 loss 159 (20 s)",
        "Unlearning 200/200 loss 199 (25 s)",
    ]


def test_log_does_not_say_the_same_twice(clock: Clock, capsys: pytest.CaptureFixture[str]):
    with ConsoleReporter().task("Evaluating target", 1) as task:
        clock.now += 11
        task.update("scoring answers", 8, 8)
    assert capsys.readouterr().err == "Evaluating target 8/8 scoring answers (11 s)\n"


def test_log_of_a_failed_task_does_not_claim_an_end(clock: Clock, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ZeroDivisionError), ConsoleReporter().task("Learning", 3):
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_log_stays_plain_when_colour_is_forced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ConsoleReporter().task("Learning", 3) as task:
        task.advance(3)
    assert capsys.readouterr().err == "Learning 3/3 (0 s)\n"


def test_said_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]):
    text = "path/[red]x[/red]:apple: " + "long " * 60
    ConsoleReporter().say(text)
    assert capsys.readouterr() == ("", text + "\n")


def test_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with ConsoleReporter().task("Learning", 4) as task:
        task.advance(1, "loss [0.5]")
        task.update("done", 4, 4)
    assert "\x1b[" in terminal.getvalue()
    assert "Learning" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()


def terminal(monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> io.BytesIO:
    """Stand in for a terminal of 80 columns."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, write_through=True)
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(console, "console", Console(file=stream, force_terminal=True, width=80, legacy_windows=False))
    monkeypatch.setenv("TERM", "xterm")
    return written


def test_terminal_shows_the_curves_of_a_task_under_its_bar(monkeypatch: pytest.MonkeyPatch):
    written = terminal(monkeypatch)
    with ConsoleReporter().task("Unlearning", 4) as task:
        for value in (8.0, 4.0, 2.0, 1.0):
            task.advance(1)
            task.plot({"forget term": value, "retain term": 0.5})
    last = written.getvalue().decode().rpartition("Unlearning")[2]
    assert "forget term  █▄▂▁  8 to 1" in last
    assert "retain term  ▁▁▁▁  0.5 to 0.5" in last


def test_terminal_that_cannot_show_them_has_none(monkeypatch: pytest.MonkeyPatch):
    written = terminal(monkeypatch, encoding="ascii")
    with ConsoleReporter().task("Unlearning", 1) as task:
        task.plot({"forget term": 8.0})
    assert b"forget term" not in written.getvalue()


def test_log_has_no_curves(capsys: pytest.CaptureFixture[str]):
    with ConsoleReporter().task("Unlearning", 1) as task:
        task.plot({"forget term": 8.0})
    assert "forget term" not in capsys.readouterr().err


def test_first_of_several_processes_alone_speaks_also_where_they_are_forked_after_the_import(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, expected in (("1", ""), ("0", "hello\n")):
        monkeypatch.setenv("RANK", rank)
        ConsoleReporter().say("hello")
        assert capsys.readouterr().err == expected
