"""Whole runs with the released arithmetic."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from tests.recipes.test_unlearn import ADAPTER, Lines, untouched
from tests.taught import Taught
from unlora.errors import InputError
from unlora.importance import ImportanceMap
from unlora.recipes.importance import write_importance
from unlora.recipes.unlearn import unlearn
from unlora.run.presets import preset
from unlora.run.settings import UnlearnSettings
from unlora.run.starting import chosen_start

PRESETS = pytest.mark.parametrize("name", ["vila_published", "fila_published"])


def settings(taught: Taught, name: str, **fields: Any) -> UnlearnSettings:
    """The preset, with batches that the four forget examples do not fit into at once."""
    few = {"batch_size": 2} | ({"passes": 2} if name.endswith("published") else {})
    chosen = yaml.safe_load(preset(name).text)["start"] | few | fields
    return taught.settings(start=chosen, evaluation={"skip": True}, training={"epochs": 1})


@PRESETS
def test_run_writes_its_map_and_goes_on_from_it(taught: Taught, tmp_path: Path, name: str):
    run = tmp_path / "run"
    unlearn(settings(taught, name), run)
    importance = ImportanceMap.load(run / "importance.safetensors")
    assert importance.metadata.published is not None
    assert importance.metadata.published.passes == 2
    assert importance.metadata.forget.example_count == 4
    record = json.loads((run / "record.json").read_text())
    assert record["initialisation"]["mean_floored_fraction"] > 0.5
    assert record["checks"]["base_weights_unchanged"] is True
    assert record["checks"]["output_at_step_0"]["largest_difference"] < 1e-4
    assert ("released arithmetic" if name.startswith("vila") else "FILA's arithmetic as") in (
        run / "adapter" / "README.md"
    ).read_text()

    adapter = (run / ADAPTER).read_bytes()
    again = tmp_path / "again"
    again.mkdir()
    for file in ("config.yaml", "importance.safetensors"):
        (again / file).write_bytes((run / file).read_bytes())
    record["finished"] = False
    record["stages"] = {"importance": record["stages"]["importance"]}
    (again / "record.json").write_text(json.dumps(record))
    reporter = Lines()
    unlearn(settings(taught, name), again, reporter=reporter)
    assert "Importance (published)" not in reporter.lines
    assert (again / ADAPTER).read_bytes() == adapter


def test_published_start_is_not_the_intact_one(taught: Taught, tmp_path: Path):
    unlearn(settings(taught, "vila_published"), tmp_path / "published")
    unlearn(settings(taught, "vila"), tmp_path / "intact")
    published, intact = (load_file(tmp_path / name / ADAPTER) for name in ("published", "intact"))
    for name, tensor in published.items():
        if ".lora_A" in name:
            frozen, other = tensor[4:], intact[name][4:]
            # Orthogonal rows in both; ours are as long as B's columns, the released ones are not.
            assert float((frozen.norm(dim=1) / other.norm(dim=1) - 1).abs().min()) > 0.1


def test_map_of_the_other_arithmetic_is_refused(taught: Taught, finished_run: Path, tmp_path: Path):
    intact = str(finished_run / "importance.safetensors")
    error = untouched(tmp_path, lambda: unlearn(settings(taught, "vila_published", file=intact), tmp_path / "run"))
    assert "measured with the intact arithmetic, and the start has the published one" in str(error)
    unlearn(settings(taught, "vila_published"), tmp_path / "measured")
    published = str(tmp_path / "measured" / "importance.safetensors")
    error = untouched(tmp_path, lambda: unlearn(settings(taught, "vila", file=published), tmp_path / "run"))
    assert "measured with the published arithmetic, and the start has the intact one" in str(error)


def test_importance_command_writes_the_map_and_says_what_its_floor_rules(taught: Taught, tmp_path: Path):
    lines = write_importance(settings(taught, "vila_published"), tmp_path / "map.safetensors")
    assert ImportanceMap.load(tmp_path / "map.safetensors").metadata.published is not None
    assert "denominators ruled by the floor: 100.0%" in lines


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"importance": {"arithmetic": "published"}}, "has no variance of marginals; there are start.kind=vila_pub"),
        ({"importance": {"arithmetic": "published", "space": "full_weights"}}, "no variance of full_weights"),
        (
            {
                "start": {"kind": "vila_published"},
                "data": {"retain": None},
                "objective": {"forget": "ga", "retain": None},
            },
            "needs data.retain",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(taught: Taught, sections: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        chosen_start(taught.settings(**sections))


def test_forget_set_of_one_batch_is_refused(taught: Taught, tmp_path: Path):
    with pytest.raises(InputError, match="single batch"):
        unlearn(settings(taught, "vila_published", batch_size=8), tmp_path / "run")
