"""Run a study by name and leave what it found: table, figures, and a page of results."""

import importlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from unlora.artifacts import write_json, write_text
from unlora.config import Config, merge, parse_overrides, read_yaml
from unlora.errors import InputError, UnloraError, nearest
from unlora.locks import alone_in
from unlora.run.reporter import SILENT, Reporter
from unlora.runtime import versions
from unlora_research.engine import Study, command, run_cells
from unlora_research.figures import save_figure
from unlora_research.names import STUDIES
from unlora_research.tables import write_table


def find_study(name: str) -> Study[Any, Any]:
    """A study by its name.

    Raises:
        InputError: unknown name, with the nearest spelling.
    """
    if name not in STUDIES:
        hint = nearest(name, STUDIES) or f" Known studies: {', '.join(STUDIES)}."
        raise InputError(f"unknown study '{name}'.{hint}")
    return importlib.import_module(f"unlora_research.{name}").STUDY


def study_settings(
    study: Study[Any, Any], *, config_file: Path | None = None, quick: bool = False, overrides: Sequence[str] = ()
) -> Config:
    """Defaults, then --quick, then the file, then --set.

    Raises:
        InputError: the first thing that is wrong, with its key.
    """
    values: dict[str, Any] = dict(study.quick) if quick else {}
    if config_file is not None:
        values = merge(values, read_yaml(config_file))
    values = merge(values, parse_overrides(overrides))
    return study.settings.from_mapping(values, where=str(config_file or f"study {study.name}"))


def run_study(
    study: Study[Any, Any],
    settings: Config,
    folder: Path,
    *,
    jobs: int | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Run the cells that are not done, then write table.csv, table.parquet, figures/ and results.md.

    Returns:
        The page of results.

    Raises:
        InputError: the folder holds another study or something else, or another process works there.
        UnloraError: cells failed; what the others found was written.
    """
    with alone_in(folder):
        return _run_study(study, settings, folder, jobs, reporter)


def _run_study(study: Study[Any, Any], settings: Config, folder: Path, jobs: int | None, reporter: Reporter) -> Path:
    start = time.perf_counter()
    outcome = run_cells(study, settings, folder, jobs=jobs, reporter=reporter)
    record = {
        "study": study.name,
        "settings": settings.model_dump(mode="json"),
        "command": command(),
        "cells": int(outcome.table["cell"].nunique()) + len(outcome.failures),
        "failed": [failure._asdict() for failure in outcome.failures],
        "seconds_of_cells": float(outcome.table.drop_duplicates("cell")["cell_seconds"].sum()),
        "seconds_of_last_start": time.perf_counter() - start,
        "cores": os.cpu_count(),
        "versions": versions(),
    }
    write_json(folder / "study.json", record)
    write_table(outcome.table, folder)
    names = draw(study, outcome.table, folder / "figures")
    page = folder / "results.md"
    title = f"# Study {study.name}\n\n{STUDIES.get(study.name, '')}\n\n"
    write_text(page, title + results(study, outcome.table, record, [f"figures/{name}" for name in names]))
    if outcome.failures:
        first = outcome.failures[0]
        raise UnloraError(
            f"{len(outcome.failures)} of {record['cells']} cells failed, the first {first.cell}: {first.error} "
            f"What the others found is in {page}; the same command tries the failed ones again."
        )
    return page


def draw(study: Study[Any, Any], table: pandas.DataFrame, folder: Path) -> list[str]:
    """Draw every figure into `folder`; returns the file names."""
    figures = study.figures(table)
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    return [f"{name}.png" for name in figures]


def results(study: Study[Any, Any], table: pandas.DataFrame, record: Mapping[str, Any], figures: Sequence[str]) -> str:
    """What a page says that comes from the records: findings, figures, and what it took."""
    pictures = "\n\n".join(f"![{Path(name).stem.replace('_', ' ')}]({name})" for name in figures)
    took = (
        f"`{record['command']}`: {record['cells']} cells, {record['seconds_of_cells']:.0f} seconds in all (summed over "
        f"cells; {record['cores']} cores, torch {record['versions']['torch']})."
    )
    failed = f" {len(record['failed'])} cells failed and are left out." if record["failed"] else ""
    return f"{study.summary(table).strip()}\n\n{pictures}\n\n{took}{failed}\n"
