"""How `unlora evaluate` chooses benchmarks, and what it refuses."""

import click
import pytest

from tests.cli.commands import error_line, unlora
from tests.cli.conftest import Inputs
from unlora.cli.evaluate import SuiteName


@pytest.mark.parametrize("text", ["mus", "muse", "muse:fanfiction", "tofu:forget01", "wmdp:bio@file.jsonl"])
def test_other_names_are_refused(text: str):
    with pytest.raises(click.BadParameter, match="muse:news"):
        SuiteName().convert(text, None, None)


def test_benchmark_brings_its_own_data(inputs: Inputs):
    result = unlora("evaluate", "--suite", "muse:news", "--model", inputs.model, "--forget", "f", "--output", "x")
    assert result.exit_code == 2
    assert "--forget does not go with --suite muse" in result.stderr


def test_wrong_task_is_named(inputs: Inputs):
    line = error_line(unlora("evaluate", "--suite", "wmdp:bio,chess", "--model", inputs.model, "--output", "x"))
    assert "tasks.1" in line
    assert "chess" in line


def test_the_same_benchmark_twice_is_refused(inputs: Inputs):
    named = ("--suite", "wmdp@a.jsonl", "--suite", "wmdp@b.jsonl")
    line = error_line(unlora("evaluate", *named, "--model", inputs.model, "--output", "x"))
    assert "evaluation.suites: names wmdp twice; one evaluation asks it once" in line


def test_folder_that_is_not_there_is_named(inputs: Inputs, tmp_path):
    output = tmp_path / "out"
    line = error_line(
        unlora("evaluate", "--suite", f"muse:news@{tmp_path / 'no'}", "--model", inputs.model, "--output", output)
    )
    assert str(tmp_path / "no") in line
    assert not output.exists()
