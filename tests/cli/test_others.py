"""Commands that other distributions bring: looked up by entry point, loaded late, refused in one line."""

from importlib.metadata import EntryPoint

import click
import pytest

from tests.cli.commands import error_line, unlora
from unlora.cli import others


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name -> value of the entry points that there are, instead of those of the installed distributions."""
    values: dict[str, str] = {}

    def found() -> dict[str, EntryPoint]:
        return {name: EntryPoint(name, value, others.GROUP) for name, value in values.items()}

    monkeypatch.setattr(others, "_entry_points", found)
    return values


@click.command(help="Count what is there.")
@click.option("--times", type=int, default=1)
def count(times: int) -> None:
    click.echo(f"counted {times}")


def test_a_command_of_another_distribution_is_listed_and_runs(installed: dict[str, str]):
    installed["count"] = f"{__name__}:count"
    listed = unlora("--help").stdout
    assert [line.split() for line in listed.splitlines()][-1] == ["count", "Count", "what", "is", "there."]
    assert unlora("count", "--times", 3).stdout == "counted 3\n"


def test_our_own_commands_come_first(installed: dict[str, str]):
    installed["doctor"] = f"{__name__}:count"
    assert "counted" not in unlora("doctor", "--help").stdout
    assert unlora("--help").stdout.count("doctor") == 1


@pytest.mark.parametrize("words", [(), ("sigma", "--quick", "--output", "out"), ("--help",), ("-h",)])
def test_without_the_laboratory_study_says_what_to_install(installed: dict[str, str], words: tuple[str, ...]):
    line = error_line(unlora("study", *words))
    assert line.startswith('error: study: is not installed; install it with: pip install "unlora[research]"')


def test_what_is_not_installed_is_not_listed(installed: dict[str, str]):
    assert "study" not in unlora("--help").stdout


def test_a_name_that_nobody_knows_is_no_command(installed: dict[str, str]):
    result = unlora("stud")
    assert (result.exit_code, "No such command 'stud'" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("no_such_module:count", "the module no_such_module that brings it cannot be loaded: No module named"),
        (f"{__name__}:uncounted", f"the module {__name__} that brings it cannot be loaded: module"),
        (f"{__name__}:GONE", f"{__name__}:GONE is no command of click"),
    ],
)
def test_a_broken_command_is_named_and_the_others_are_listed(installed: dict[str, str], value: str, says: str):
    installed["count"] = value
    assert error_line(unlora("count", "--times", "3")).startswith(f"error: count: {says}")
    listed = unlora("--help")
    assert (listed.exit_code, "doctor" in listed.stdout, "count: " in listed.stdout) == (0, True, True)


GONE = "a string"
