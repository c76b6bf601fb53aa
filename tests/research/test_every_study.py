"""Every study by its command, on a tiny model; every page says what its records say."""

from pathlib import Path

import pytest

from tests.cli.commands import unlora
from unlora_research.names import STUDIES
from unlora_research.study_pages import BEGIN, END, PAGES, generated
from unlora_research.tables import read_table

WRITTEN = [name for name in STUDIES if (PAGES / f"{name}.md").is_file()]


@pytest.mark.parametrize("name", STUDIES)
def test_quick_version_runs_by_command(name: str, tmp_path: Path):
    output = tmp_path / "study"
    result = unlora("study", name, "--quick", "--output", output)
    assert result.exit_code == 0, result.output
    table = read_table(output / "table.csv")
    assert len(table) >= 2
    for figure in (output / "figures").iterdir():
        assert figure.read_bytes().startswith(b"\x89PNG")
    assert f"# Study {name}" in (output / "results.md").read_text()
    cells = sorted((output / "cells").iterdir())
    times = [(cell / "cell.json").stat().st_mtime_ns for cell in cells]
    assert unlora("study", name, "--quick", "--output", output).exit_code == 0
    assert [(cell / "cell.json").stat().st_mtime_ns for cell in cells] == times


@pytest.mark.parametrize("name", WRITTEN)
def test_page_says_what_its_records_say(name: str):
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == generated(name).strip()


def test_unknown_settings_and_names_are_refused(tmp_path: Path):
    output = tmp_path / "study"
    wrong = unlora("study", "sigma", "--set", "sigma=[0.1]", "--output", output)
    assert (wrong.exit_code, "unknown key 'sigma'. Did you mean 'sigmas'?" in wrong.output) == (2, True)
    unknown = unlora("study", "sigmas", "--output", output)
    assert (unknown.exit_code, "sigma" in unknown.output) == (2, True)
    assert not output.exists()
