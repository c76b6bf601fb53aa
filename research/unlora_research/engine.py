"""A study: a grid of cells, each with a hash and a folder of its own; what is done is not done again.

FOLDER/study.json            name, settings, command, versions, seconds
FOLDER/cells/HASH/cell.json  what the cell was and the rows it found
FOLDER/cells/HASH/error.json why it failed; the next start tries it again
FOLDER/cells/HASH/...        what it needs while it runs, such as run folders of `unlora unlearn`
FOLDER/table.csv, table.parquet, figures/, results.md
"""

import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import pandas
import torch
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unlora.artifacts import (
    START_AGAIN,
    advised,
    nan_to_null,
    read_json_object,
    refuse_unwritable,
    write_json,
)
from unlora.config import Config
from unlora.errors import InputError, UnloraError
from unlora.locks import alone_in
from unlora.run.output import refuse_strangers
from unlora.run.reporter import SILENT, Reporter
from unlora.run.side_by_side import PATIENCE, side_by_side

OWN_FILES = re.compile(r"cells|figures|\.?(study\.json|table\.(csv|parquet)|results\.md)(\..*)?")
"""What a study's folder holds, files that a kill has left half written among it."""

Value = str | int | float | bool | None
Row = dict[str, Value]

SettingsType = TypeVar("SettingsType", bound=Config)
CellType = TypeVar("CellType", bound=Config)


class Workplace(NamedTuple):
    """Where a cell runs."""

    folder: Path
    """Its own; a cell that was killed finds there what it left."""
    device: str
    """cpu, or one of the machine's GPUs."""


@dataclass(frozen=True)
class Study(Generic[SettingsType, CellType]):
    """A question, the cells that answer it, and how their rows are read."""

    name: str
    settings: type[SettingsType]
    """The whole study, as published, is its defaults."""
    quick: Mapping[str, Any]
    """What `--quick` changes: the same study on a tiny model, in less than two minutes."""
    cells: Callable[[SettingsType], Sequence[CellType]]
    run: Callable[[CellType, Workplace], list[Row]]
    """Run one cell. Called in a process of its own where there are several, so it is a function of a module."""
    summary: Callable[[pandas.DataFrame], str]
    """The table, with the fields of every cell beside its rows -> Markdown: what was found, in words and numbers."""
    figures: Callable[[pandas.DataFrame], Mapping[str, Figure]]
    """The same table -> file stem -> figure."""


class _Kept(BaseModel):
    """What is read of cell.json again."""

    model_config = ConfigDict(strict=True)
    seconds: float
    rows: list[Row] = Field(min_length=1)


class Failure(NamedTuple):
    """A cell that ended in an error."""

    cell: str
    error: str


class Outcome(NamedTuple):
    """What the cells left."""

    table: pandas.DataFrame
    """One line an observation: the fields of its cell, its own, the cell's hash and the seconds the cell took."""
    failures: list[Failure]


def run_cells(
    study: Study[SettingsType, CellType],
    settings: SettingsType,
    folder: Path,
    *,
    jobs: int | None = None,
    reporter: Reporter = SILENT,
) -> Outcome:
    """Run what is not done, in `jobs` processes, and gather the rows of all cells.

    Args:
        study: what to run.
        settings: resolved settings of the study.
        folder: the study's folder.
        jobs: cells at a time; None is one for each GPU, or one.
        reporter: where words and progress go.

    Raises:
        InputError: the folder holds another study or something else, or a cell's file is damaged.
        UnloraError: a process was killed, or no cell succeeded.
    """
    claim(folder, study.name)
    cells = {cell.sha256()[:16]: cell for cell in study.cells(settings)}
    waiting = [name for name in cells if not (folder / "cells" / name / "cell.json").is_file()]
    if len(waiting) < len(cells):
        reporter.say(f"{len(cells) - len(waiting)} of {len(cells)} cells are done")
    with reporter.task(f"Study {study.name}, cells", len(cells)) as task:
        task.advance(len(cells) - len(waiting))
        for name in _worked_off(study, {name: cells[name] for name in waiting}, folder, jobs):
            task.advance(1, _shown(cells[name]))
    return gather(cells, folder)


def gather(cells: Mapping[str, Config], folder: Path) -> Outcome:
    """Read what cells left, in the order of the grid."""
    rows, failures, is_text = [], [], {}
    for name, cell in cells.items():
        kept = folder / "cells" / name / "cell.json"
        if not kept.is_file():
            found = read_json_object(folder / "cells" / name / "error.json")
            failures.append(Failure(f"{name} ({_shown(cell)})", str(found.get("error", "no reason given"))))
            continue
        with advised(START_AGAIN):
            record = _read_cell(kept)
            _refuse_other_kinds(kept, record.rows, is_text)
        about = {"cell": name, "cell_seconds": record.seconds}
        rows += [{**columns(cell), **row, **about} for row in record.rows]
    if not rows:
        raise UnloraError(f"no cell succeeded: {failures[0].error} ({folder / 'cells'})")
    return Outcome(as_table(rows), failures)


def _read_cell(path: Path) -> _Kept:
    try:
        return _Kept.model_validate(read_json_object(path))
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"][:3]))
        raise InputError(f"{path}: not what a cell of a study leaves ({key}).") from None


def _refuse_other_kinds(path: Path, rows: Sequence[Row], is_text: dict[str, bool]) -> None:
    """A column is all text or all numbers, as `is_text` notes: what reads the table counts on it."""
    for row in rows:
        for key, value in row.items():
            if value is not None and is_text.setdefault(key, isinstance(value, str)) != isinstance(value, str):
                raise InputError(f"{path}: not what a cell of a study leaves ('{key}' is of two kinds).")


def as_table(rows: Sequence[Row]) -> pandas.DataFrame:
    """Rows as a table; a column without any value holds NaN, as one with some values does where one is missing."""
    table = pandas.DataFrame(rows)
    empty = [name for name in table.columns if table[name].isna().all()]
    return table.astype(dict.fromkeys(empty, float))


def columns(cell: Config) -> Row:
    """The fields of a cell that are single values; what is nested follows from them."""
    return {key: value for key, value in cell.model_dump(mode="json").items() if not isinstance(value, dict | list)}


def claim(folder: Path, name: str) -> None:
    """Make the folder of a study, or find out that it is one, and write whose it is.

    Raises:
        InputError: it holds another study or something else, or cannot be written.
    """
    kept = folder / "study.json"
    if not kept.is_file():
        refuse_strangers(folder, OWN_FILES, kind="study")
    refuse_unwritable(folder)
    if kept.is_file():
        with advised(f"put it back, remove {folder} or choose another --output"):
            found = read_json_object(kept).get("study")
        if found != name:
            raise InputError(f"{folder}: holds the study '{found}'; choose another folder for '{name}'.")
        return
    write_json(kept, {"study": name})


def _shown(cell: Config) -> str:
    told = {key: value for key, value in columns(cell).items() if value is not None}
    return ", ".join(f"{value}" if isinstance(value, str) else f"{key} {value}" for key, value in told.items())


def _worked_off(
    study: Study[Any, CellType], cells: Mapping[str, CellType], folder: Path, jobs: int | None
) -> Iterator[str]:
    """Run cells, yielding the name of each when it ends, well or not."""
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    work = [
        (study.run, name, cell, Workplace(folder / "cells" / name, devices[index % len(devices)]))
        for index, (name, cell) in enumerate(cells.items())
    ]
    return side_by_side(_run_one, work, jobs or len(devices), what="study")


def _run_one(run: Callable[[CellType, Workplace], list[Row]], name: str, cell: CellType, place: Workplace) -> str:
    """Run one cell and keep its rows, or its error; a process that the last start has left there is waited for."""
    with alone_in(place.folder, patience=PATIENCE):
        place.folder.mkdir(parents=True, exist_ok=True)
        return _run_alone(run, name, cell, place)


def _run_alone(run: Callable[[CellType, Workplace], list[Row]], name: str, cell: CellType, place: Workplace) -> str:
    start = time.perf_counter()
    try:
        rows = run(cell, place)
        if not rows:
            raise UnloraError("the cell found no rows")
    except Exception as error:
        text = f"{type(error).__name__}: {error}" if not isinstance(error, UnloraError) else str(error)
        record = {"cell": cell.model_dump(mode="json"), "error": text, "traceback": traceback.format_exc().splitlines()}
        write_json(place.folder / "error.json", record)
        return name
    seconds = round(time.perf_counter() - start, 3)
    record = {"cell": cell.model_dump(mode="json"), "seconds": seconds, "rows": nan_to_null(rows)}
    write_json(place.folder / "cell.json", record)
    (place.folder / "error.json").unlink(missing_ok=True)
    return name


def command() -> str:
    """The command that is running, for the record; where its output lies does not belong there."""
    words = [*sys.argv[1:]]
    for place, word in enumerate(words):
        if word == "--output":
            words[place + 1 : place + 2] = ["DIR"]
        elif word.startswith("--output="):
            words[place] = "--output=DIR"
    return " ".join(["unlora", *words])
