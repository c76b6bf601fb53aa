"""A small world, and a table of equal search in it."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml

from unlora.artifacts import write_text
from unlora.config import merge, read_yaml
from unlora.data.sources import load_examples
from unlora.models.load import load_model
from unlora.recipes.presets import preset
from unlora.recipes.settings import UnlearnSettings
from unlora.studies import comparison
from unlora.studies.comparison import GridPoint, Row, Setting, compare, references, run_cell
from unlora.studies.small_world import SmallWorld, SmallWorldFiles, build_small_world

WORLD = SmallWorld(people=8, forget_people=2, held_out_people=2, questions_per_person=3, hidden_size=64, layers=2,
                   vocabulary=400, epochs=20, learning_rate=1e-2, batch_size=8)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    cache = os.environ.get("UNLORA_CACHE")
    os.environ["UNLORA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield build_small_world(WORLD)
    if cache is None:
        del os.environ["UNLORA_CACHE"]
    else:
        os.environ["UNLORA_CACHE"] = cache


@pytest.fixture
def setting(files: SmallWorldFiles) -> Setting:
    base = {
        "model": {"name": str(files.target), "device": "cpu", "dtype": "float32"},
        "data": {"forget": str(files.forget), "retain": str(files.retain), "template": "plain"},
        "adapter": {"rank": 2, "alpha": 4},
        "training": {"epochs": 3, "save_steps": 1000},
        "evaluation": {
            "forget": str(files.forget), "retain": str(files.held_out), "retain_only": str(files.retain_only),
            "max_new_tokens": 1,
        },
    }  # fmt: skip
    return Setting(dict.fromkeys((0, 1), base))


def test_sets_do_not_overlap_and_the_models_differ(files: SmallWorldFiles):
    sets = [{one.prompt for one in load_examples(str(path))} for path in (files.forget, files.retain, files.held_out)]
    assert [len(one) for one in sets] == [6, 12, 6]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    target, retain_only = (
        load_model(str(path), dtype=torch.float32, device=torch.device("cpu")).model
        for path in (files.target, files.retain_only)
    )
    pairs = zip(target.parameters(), retain_only.parameters(), strict=True)
    assert any(not one.equal(other) for one, other in pairs)


def test_world_is_found_again(files: SmallWorldFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("UNLORA_CACHE", str(files.target.parents[2]))
    monkeypatch.setattr("unlora.studies.small_world.fine_tune", lambda *_, **__: pytest.fail("trained again"))
    assert build_small_world(WORLD) == files


def test_the_best_point_on_the_validation_half_is_run_with_every_seed(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    grid = [GridPoint(1e-9, 1.0), GridPoint(2e-2, 1.0)]
    rows = [Row("plain", "plain", {}), Row("contrast", "contrast", {"adapter": {"rank": 2}})]
    chosen = compare(setting, rows, grid, tmp_path)
    for name, cells in chosen.items():
        assert [(cell.row, cell.seed) for cell in cells] == [(name, 0), (name, 1)]
        # A learning rate of nothing forgets nothing.
        assert {cell.point for cell in cells} == {grid[1]}
        assert cells[0].validation_balance > 0
    found = references(tmp_path, 0)
    assert found["target"].forget_probability > found["retain_only"].forget_probability
    # Started again, nothing is run.
    monkeypatch.setattr(comparison, "unlearn", lambda *_, **__: pytest.fail("run again"))
    assert compare(setting, rows, grid, tmp_path) == chosen


def test_cells_of_a_row_share_one_measurement(setting: Setting, tmp_path: Path):
    row = Row("contrast", "contrast", {})
    alone = run_cell(setting, row, GridPoint(2e-2, 1.0), 0, tmp_path / "alone")
    run_cell(setting, row, GridPoint(1e-3, 1.0), 0, tmp_path / "both")
    shared = run_cell(setting, row, GridPoint(2e-2, 1.0), 0, tmp_path / "both")
    assert shared._replace(seconds=0) == alone._replace(seconds=0)
    record = json.loads((tmp_path / "both/contrast/lr0.02-rw1-seed0/run/record.json").read_text())
    assert "importance" not in record["stages"]


def test_a_killed_cell_that_began_otherwise_is_run_anew(setting: Setting, tmp_path: Path):
    row, killed, measured = Row("contrast", "contrast", {}), GridPoint(1e-3, 1.0), GridPoint(2e-2, 1.0)
    run = tmp_path / "contrast" / f"{killed.name}-seed0" / "run"
    # Killed after it measured for itself; then another cell of the row measured the same.
    settings = merge(yaml.safe_load(preset("contrast").text), dict(setting.base[0]))
    settings = merge(settings, {"training": {"learning_rate": killed.learning_rate}, "objective": {"retain_weight": 1}})
    run.mkdir(parents=True)
    write_text(run / "config.yaml", UnlearnSettings.from_mapping(settings, where="test").to_yaml())
    run_cell(setting, row, measured, 0, tmp_path)
    cell = run_cell(setting, row, killed, 0, tmp_path)
    assert cell.point == killed
    assert str(tmp_path) in read_yaml(run / "config.yaml")["importance"]["file"]
