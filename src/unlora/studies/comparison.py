"""Equal search for every row of a table: the same grid, chosen on a validation half, reported on the other, by seed.

A cell is one run of `unlora unlearn` in a folder of its own: started again, finished cells are not repeated.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from unlora.artifacts import read_json, write_json
from unlora.config import merge, read_yaml
from unlora.evaluation.scores import ModelScores, load_scores
from unlora.recipes.presets import preset
from unlora.recipes.reporter import SILENT, Reporter
from unlora.recipes.settings import UnlearnSettings
from unlora.recipes.unlearn import unlearn
from unlora.studies.halves import HalfResult, balance, half_result

MODELS = ("target", "unlearned", "retain_only")


@dataclass(frozen=True)
class Row:
    """One row of the table: a preset and what it changes of it."""

    name: str
    preset: str
    changes: Mapping[str, Any]


class GridPoint(NamedTuple):
    """What is searched."""

    learning_rate: float
    retain_weight: float

    @property
    def name(self) -> str:
        """For folders."""
        return f"lr{self.learning_rate:g}-rw{self.retain_weight:g}"


@dataclass(frozen=True)
class Setting:
    """Target, data and training budget of a seed; the same for every row."""

    base: Mapping[int, Mapping[str, Any]]
    """Seed -> settings of the run: model, data, evaluation, training."""


class CellResult(NamedTuple):
    """One run on both halves."""

    row: str
    seed: int
    point: GridPoint
    validation: HalfResult
    test: HalfResult
    validation_balance: float
    test_balance: float
    seconds: float


def folder_of(folder: Path, row: str, point: GridPoint, seed: int) -> Path:
    """Where a cell lies; its run is in "run"."""
    return folder / row / f"{point.name}-seed{seed}"


def run_cell(
    setting: Setting, row: Row, point: GridPoint, seed: int, folder: Path, *, reporter: Reporter = SILENT
) -> CellResult:
    """Run one cell, or read what it left."""
    cell_folder = folder_of(folder, row.name, point, seed)
    kept = cell_folder / "cell.json"
    if kept.is_file():
        return _from_json(read_json(kept))
    values = merge(yaml.safe_load(preset(row.preset).text), dict(setting.base[seed]))
    values = merge(values, dict(row.changes))
    searched: dict[str, Any] = {"training": {"learning_rate": point.learning_rate}, "seed": seed}
    if values["objective"].get("retain", "nll") is not None:
        searched["objective"] = {"retain_weight": point.retain_weight}
    # What the start is decided by depends on row and seed alone: one cell measures it for all.
    for measured in sorted((folder / row.name).glob(f"*-seed{seed}/run/importance.safetensors")):
        if measured.parent.parent != cell_folder and (measured.parent.parent / "cell.json").is_file():
            searched["importance"] = {"file": str(measured)}
            break
    settings = UnlearnSettings.from_mapping(merge(values, searched), where=row.name)
    reporter.say(f"{row.name}, {point.name}, seed {seed}")
    _remove_other_start(cell_folder / "run", settings)
    unlearn(settings, cell_folder / "run")
    record = read_json(cell_folder / "run" / "record.json")
    scores = {name: load_scores(cell_folder / "run" / "scores" / f"{name}.jsonl") for name in MODELS}
    result = _result(row.name, seed, point, scores, sum(stage["seconds"] for stage in record["stages"].values()))
    write_json(kept, _to_json(result))
    return result


def _remove_other_start(run: Path, settings: UnlearnSettings) -> None:
    """An unfinished run that had begun otherwise (it measured for itself what another cell has found since) is lost."""
    config = run / "config.yaml"
    if config.is_file() and read_yaml(config) != settings.model_dump(mode="json"):
        shutil.rmtree(run)


def _result(row: str, seed: int, point: GridPoint, scores: Mapping[str, ModelScores], seconds: float) -> CellResult:
    halves = [
        {name: half_result(one, scores["retain_only"], which) for name, one in scores.items()} for which in (0, 1)
    ]
    chosen_by, reported = (
        balance(results["unlearned"], results["target"], results["retain_only"]) for results in halves
    )
    return CellResult(row, seed, point, halves[0]["unlearned"], halves[1]["unlearned"], chosen_by, reported, seconds)


def compare(
    setting: Setting,
    rows: Sequence[Row],
    grid: Sequence[GridPoint],
    folder: Path,
    *,
    search_seed: int = 0,
    reporter: Reporter = SILENT,
) -> dict[str, list[CellResult]]:
    """Search every row on one seed, then run what did best on its validation half with every seed.

    Returns:
        Row name -> the chosen point's cells, one a seed.
    """
    chosen = {}
    for row in rows:
        found = [run_cell(setting, row, point, search_seed, folder, reporter=reporter) for point in grid]
        best = max(found, key=lambda cell: cell.validation_balance).point
        chosen[row.name] = [run_cell(setting, row, best, seed, folder, reporter=reporter) for seed in setting.base]
    return chosen


def references(folder: Path, seed: int) -> dict[str, HalfResult]:
    """Target and retain-only model on the test half, from any finished cell of the seed."""
    run = next(path.parent / "run" for path in sorted(folder.glob(f"*/*-seed{seed}/cell.json")))
    scores = {name: load_scores(run / "scores" / f"{name}.jsonl") for name in ("target", "retain_only")}
    return {name: half_result(one, scores["retain_only"], 1) for name, one in scores.items()}


def _to_json(result: CellResult) -> dict[str, Any]:
    parts = {name: getattr(result, name)._asdict() for name in ("point", "validation", "test")}
    return result._asdict() | parts


def _from_json(record: dict[str, Any]) -> CellResult:
    halves = {name: HalfResult(**record[name]) for name in ("validation", "test")}
    return CellResult(**{**record, **halves, "point": GridPoint(**record["point"])})
