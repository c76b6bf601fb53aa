"""Help is instant, exit codes mean something, and `python -m unlora` is the same program."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from tests.cli.commands import unlora
from tests.cli.conftest import Inputs
from unlora.cli.main import main
from unlora.errors import UnloraError

COMMANDS = (
    ["demo"],
    ["unlearn"],
    ["sequence"],
    ["ledger"],
    *(["ledger", name] for name in ("init", "add", "status", "settle", "rollback", "attach", "verify")),
    ["sweep"],
    ["importance"],
    ["finetune"],
    ["evaluate"],
    ["audit"],
    ["report"],
    ["export"],
    ["push"],
    ["data"],
    ["data", "check"],
    ["presets"],
    ["cache"],
    ["cache", "ls"],
    ["cache", "rm"],
    ["presets", "ls"],
    ["presets", "cp"],
    ["doctor"],
)
ALLOWED_FOR_HELP = {"click", "unlora", "unlora_research"}
"""Packages besides the standard library that may be loaded before a command runs."""

NEW_PACKAGES = """
import sys
before = set(sys.modules)
{code}
after = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(after - set(sys.stdlib_module_names)), file=sys.stderr)
"""


def packages_loaded_by(code: str) -> set[str]:
    """Names of the packages, standard library aside, that `code` imports in a fresh interpreter."""
    command = [sys.executable, "-c", NEW_PACKAGES.format(code=code)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(finished.stderr.splitlines()[-1].split())


def test_help_of_every_command_loads_only_click():
    code = f"""
from unlora.cli.main import main
for command in {[[], *COMMANDS, ["study"]]}:
    main([*command, "--help"], prog_name="unlora", standalone_mode=False)
"""
    assert packages_loaded_by(code) == ALLOWED_FOR_HELP


def test_wrong_settings_are_refused_before_torch_is_loaded():
    code = """
from unlora.cli.main import main
try:
    main(["unlearn", "--model", "m", "--forget", "f", "--retain", "r", "--output", "o", "--preset", "vlia"])
except SystemExit as stop:
    assert stop.code == 2
"""
    loaded = packages_loaded_by(code)
    assert "yaml" in loaded
    assert not loaded & {"torch", "transformers", "numpy", "rich"}


def test_import_unlora_loads_nothing_else():
    assert packages_loaded_by("import unlora") == {"unlora"}


def test_commands_are_listed_in_the_order_of_use():
    first = ["demo", "unlearn", "plan", "sequence", "ledger", "sweep", "importance", "finetune", "evaluate"]
    then = ["audit", "report", "export", "push", "data", "cache", "presets", "doctor"]
    brought = ["study"]  # by another distribution
    assert main.list_commands(click.Context(main)) == [*first, *then, *brought]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_says_what_the_command_and_each_option_is_for(command: list[str]):
    result = unlora(*command, "--help")
    assert result.exit_code == 0
    assert "\\b" not in result.output
    found: Any = main
    for name in command:
        found = found.get_command(click.Context(found), name)
    assert found.help.endswith(".")
    assert [option.name for option in found.params if isinstance(option, click.Option) and not option.help] == []


def test_examples_in_help_keep_their_lines():
    lines = unlora("finetune", "--help").output.splitlines()
    start = lines.index("  Examples:")
    assert [line.split()[:2] for line in lines[start + 1 :]] == [["unlora", "finetune"]] * 2


def test_python_dash_m_is_the_same_program():
    def output_of(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    script = str(Path(sys.executable).with_name("unlora"))
    assert output_of(sys.executable, "-m", "unlora", "--help") == output_of(script, "--help")
    assert output_of(sys.executable, "-m", "unlora", "--version").startswith("unlora, version ")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("unlern",),
        ("unlearn", "--modle", "x"),
        ("unlearn", "--seed", "x"),
        ("data", "check"),
        ("presets", "cp", "vila"),
        ("export", "run"),
        ("export", "run", "--merged", "--rank", "4"),
        ("export", "run", "--rank", "0"),
    ],
    ids=" ".join,
)
def test_wrong_use_exits_2(arguments: tuple[str, ...]):
    result = unlora(*arguments)
    assert result.exit_code == 2
    assert "Usage: unlora" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("unlearn", "--model", "m", "--forget", "f"), "--output"),
        (("unlearn", "--forget", "f", "--output", "o"), "--model"),
        (("unlearn", "--model", "m", "--output", "o"), "--forget"),
        (("importance", "--model", "m", "--output", "o"), "--forget"),
        (("evaluate", "--forget", "f", "--output", "o"), "--model"),
        (("finetune", "--model", "m", "--output", "o"), "--data"),
        (("finetune", "--data", "d", "--output", "o"), "--model"),
        (("unlearn", "c.yaml"), "--output"),
    ],
)
def test_missing_option_is_named(arguments: tuple[str, ...], option: str):
    result = unlora(*arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"Error: Missing option '{option}'."


def test_model_may_come_from_set_instead_of_its_option(inputs: Inputs, tmp_path: Path):
    options = ("--set", f"model.name={inputs.model}", "--set", f"data.forget={tmp_path / 'none.jsonl'}")
    result = unlora("unlearn", *options, "--retain", inputs.retain, "--output", tmp_path / "run")
    assert result.stderr == f"error: {tmp_path / 'none.jsonl'}: no such file.\n"


def run_raising(error: BaseException, monkeypatch: pytest.MonkeyPatch, command: str = "unlearn"):
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr("unlora.recipes.unlearn.unlearn", fail)
    monkeypatch.setattr("unlora.recipes.evaluate.evaluate_checkpoint", fail)
    monkeypatch.setattr("unlora.recipes.fine_tune.fine_tune", fail)
    sets = ("--data", "d") if command == "finetune" else ("--forget", "f", "--retain", "r")
    return unlora(command, "--model", "m", *sets, "--output", "o")


def test_failed_work_exits_1_with_one_line(monkeypatch: pytest.MonkeyPatch):
    result = run_raising(UnloraError("the loss is\nnot a number."), monkeypatch)
    assert (result.exit_code, result.stderr) == (1, "error: the loss is not a number.\n")


def test_full_disk_exits_1_with_one_line(monkeypatch: pytest.MonkeyPatch):
    result = run_raising(OSError(errno.ENOSPC, "No space left on device", "runs/x/file"), monkeypatch)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: runs/x/file: No space left on device; free some space")


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch):
    assert isinstance(run_raising(ZeroDivisionError(), monkeypatch).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("unlearn", "error: interrupted; the same command goes on where it stopped.\n"),
        ("evaluate", "error: interrupted; the same command goes on where it stopped.\n"),
        ("finetune", "error: interrupted.\n"),
    ],
)
def test_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, command: str, line: str):
    result = run_raising(KeyboardInterrupt(), monkeypatch, command)
    assert (result.exit_code, result.stderr) == (130, line)


def test_interrupt_while_the_command_line_is_parsed_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(click.Group, "parse_args", interrupted)
    result = unlora("unlearn")
    assert (result.exit_code, result.stderr) == (130, "error: interrupted.\n")
