"""Cells are run once, failures are kept and tried again, and several processes find what one finds."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest
from matplotlib.figure import Figure

from unlora.config import Config
from unlora.errors import InputError, UnloraError
from unlora_research.engine import Row, Study, Workplace, as_table, command, run_cells
from unlora_research.study import run_study
from unlora_research.tables import read_table, spread


class Squares(Config):
    numbers: tuple[int, ...] = (1, 2, 3)
    bad: Path | None = None
    """While this file is there, the cell of 2 fails."""
    pause: float = 0.0


class SquareCell(Config):
    number: int
    bad: Path | None
    pause: float


def cells(settings: Squares) -> list[SquareCell]:
    return [SquareCell(number=one, bad=settings.bad, pause=settings.pause) for one in settings.numbers]


def run(cell: SquareCell, place: Workplace) -> list[Row]:
    with (place.folder / "runs.txt").open("a") as log:
        log.write("run\n")
    time.sleep(cell.pause)
    if cell.number == 2 and cell.bad is not None and cell.bad.is_file():
        raise ZeroDivisionError("two is bad")
    root = float("nan") if cell.number == 3 else cell.number**0.5
    return [{"kind": "square", "value": cell.number**2, "root": root}, {"kind": "none", "value": 0, "root": 0.1}]


def summary(table: pandas.DataFrame) -> str:
    return f"sum {table['value'].sum()}"


STUDY = Study("squares", Squares, {}, cells, run, summary, lambda table: {"empty": Figure()})


def runs(folder: Path) -> dict[int, int]:
    """Number -> how often its cell was begun."""
    found = {}
    for log in folder.glob("cells/*/runs.txt"):
        kept = next(log.parent.glob("*.json"))
        found[json.loads(kept.read_text())["cell"]["number"]] = len(log.read_text().splitlines())
    return found


def test_rows_stand_beside_the_fields_of_their_cell(tmp_path: Path):
    table = run_cells(STUDY, Squares(), tmp_path).table
    assert list(table["number"]) == [1, 1, 2, 2, 3, 3]
    assert list(table["value"]) == [1, 0, 4, 0, 9, 0]
    assert table["root"].isna().tolist() == [False, False, False, False, True, False]  # NaN is missing, not nought
    assert table["cell"].nunique() == 3


def test_done_is_not_done_again_and_a_larger_grid_adds_to_it(tmp_path: Path):
    run_cells(STUDY, Squares(), tmp_path)
    table = run_cells(STUDY, Squares(numbers=(3, 4)), tmp_path).table
    assert list(table["number"]) == [3, 3, 4, 4]
    assert runs(tmp_path) == {1: 1, 2: 1, 3: 1, 4: 1}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failed_cell_is_recorded_the_rest_goes_on_and_it_is_tried_again(tmp_path: Path, jobs: int):
    bad = tmp_path / "bad"
    bad.touch()
    with pytest.raises(UnloraError, match=r"1 of 3 cells failed.*number 2.*ZeroDivisionError: two is bad") as raised:
        run_study(STUDY, Squares(bad=bad), tmp_path / "out", jobs=jobs)
    assert raised.value.exit_code == 1
    assert "\n" not in str(raised.value)
    table = read_table(tmp_path / "out" / "table.csv")
    assert list(table["number"]) == [1, 1, 3, 3]
    record = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [failure["error"] for failure in record["failed"]] == ["ZeroDivisionError: two is bad"]
    assert "1 cells failed" in (tmp_path / "out" / "results.md").read_text()
    bad.unlink()
    run_study(STUDY, Squares(bad=bad), tmp_path / "out", jobs=jobs)
    assert list(read_table(tmp_path / "out" / "table.csv")["value"]) == [1, 0, 4, 0, 9, 0]
    assert runs(tmp_path / "out") == {1: 1, 2: 2, 3: 1}
    assert not list((tmp_path / "out").rglob("error.json"))


def test_several_processes_find_what_one_finds(tmp_path: Path):
    one = run_cells(STUDY, Squares(), tmp_path / "one").table
    two = run_cells(STUDY, Squares(), tmp_path / "two", jobs=2).table
    pandas.testing.assert_frame_equal(one.drop(columns="cell_seconds"), two.drop(columns="cell_seconds"))


def test_tables_read_back_are_the_table(tmp_path: Path):
    run_study(STUDY, Squares(), tmp_path)
    table, again = run_cells(STUDY, Squares(), tmp_path).table, read_table(tmp_path / "table.csv")
    parquet = pandas.read_parquet(tmp_path / "table.parquet")
    assert list(again["kind"]) == ["square", "none"] * 3
    for found in (again, parquet):
        assert found.drop(columns="bad").equals(table.drop(columns="bad"))


def test_a_folder_of_another_study_is_refused(tmp_path: Path):
    run_study(STUDY, Squares(), tmp_path)
    other = Study("cubes", Squares, {}, cells, run, summary, lambda table: {})
    with pytest.raises(InputError, match="holds the study 'squares'"):
        run_study(other, Squares(), tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "config.yaml", "cells.bak"])
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, name: str):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"not empty and not a study of unlora \({name}\); choose another --output"):
        run_study(STUDY, Squares(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_and_a_link_to_nowhere_are_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; --output names a folder"):
        run_study(STUDY, Squares(), tmp_path / "file")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match="is a link that leads nowhere"):
        run_study(STUDY, Squares(), tmp_path / "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.parametrize("content", ["[]", "null", "{", '"squares"', "{}"])
def test_damaged_study_json_is_named(tmp_path: Path, content: str):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(InputError, match=r"study\.json[:,] |holds the study 'None'"):
        run_study(STUDY, Squares(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


def test_the_command_on_record_names_no_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/bin/unlora", "study", "sigma", "--output", "/home/me/x", "--quick"])
    assert command() == "unlora study sigma --output DIR --quick"
    monkeypatch.setattr(sys, "argv", ["unlora", "study", "sigma", "--output=/home/me/x"])
    assert command() == "unlora study sigma --output=DIR"


def test_no_cell_at_all_succeeds(tmp_path: Path):
    bad = tmp_path / "bad"
    bad.touch()
    with pytest.raises(UnloraError, match="no cell succeeded: ZeroDivisionError: two is bad"):
        run_study(STUDY, Squares(numbers=(2,), bad=bad), tmp_path / "out")


def test_killed_it_loses_the_running_cell_alone(tmp_path: Path):
    code = (
        "from pathlib import Path; from tests.research.test_engine import *; "
        f"run_study(STUDY, Squares(numbers=tuple(range(1, 9)), pause=0.5), Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("cells/*/runs.txt"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(list(tmp_path.glob("cells/*/cell.json")))
    assert finished == 3
    run_study(STUDY, Squares(numbers=tuple(range(1, 9)), pause=0.5), tmp_path)
    assert runs(tmp_path) == {1: 1, 2: 1, 3: 1, 4: 2, 5: 1, 6: 1, 7: 1, 8: 1}
    assert len(read_table(tmp_path / "table.csv")) == 16


GOOD_ROW = '{"kind": "square", "value": 1, "root": 1.0}'
DAMAGED_CELLS = (
    "",
    "[]",
    '{"seconds": 1}',
    *(f'{{"seconds": 1, "rows": {rows}}}' for rows in ("5", "[1]", "[]", '[{"value": [1]}]', '[{"value": {}}]')),
    *(f'{{"seconds": {seconds}, "rows": [{GOOD_ROW}]}}' for seconds in ('"x"', "null", "[]", "NaN")),
    f'{{"seconds": 1, "rows": [{GOOD_ROW.replace("1,", chr(34) + "x" + chr(34) + ",")}]}}',
)


@pytest.mark.parametrize("content", DAMAGED_CELLS)
def test_damaged_cell_is_named(tmp_path: Path, content: str):
    run_cells(STUDY, Squares(), tmp_path)
    cell = next(one for one in tmp_path.glob("cells/*/cell.json") if '"number": 3' in one.read_text())
    cell.write_text(content)
    with pytest.raises(InputError, match=rf"^{re.escape(str(cell))}.*; remove it and start again\.$"):
        run_cells(STUDY, Squares(), tmp_path)


def test_column_without_any_value_is_a_column_of_missing_numbers():
    """Forget quality of fewer than four questions is None in every row of a small study."""
    table = as_table([{"cell": "a", "quality": None, "loss": 1.0}, {"cell": "b", "quality": None, "loss": 2.0}])
    assert table["quality"].dtype == float
    assert spread(table["quality"], 2) == "none"
    assert list(table["loss"]) == [1.0, 2.0]
