"""Progress: a bar on a terminal, a line now and then in a log; results never share their stream."""

import io
import sys

import pytest

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
