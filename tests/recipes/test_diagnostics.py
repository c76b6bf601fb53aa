"""What a run and `unlora importance` say about the map."""

import json
from pathlib import Path

import pytest

from tests.recipes.test_unlearn import Lines
from tests.taught import Taught
from unlora.errors import InputError
from unlora.importance import ImportanceMap
from unlora.importance.diagnostics import diagnose
from unlora.recipes.importance import write_importance
from unlora.recipes.unlearn import unlearn
from unlora.run.starting import chosen_start


def test_record_of_a_run_holds_the_summary_of_its_map(finished_run: Path):
    kept = json.loads((finished_run / "record.json").read_text())["importance"]
    importance = ImportanceMap.load(finished_run / "importance.safetensors")
    measured = importance.metadata
    assert measured.retain is not None
    assert (kept["statistic"], kept["space"]) == ("variance", "marginals")
    assert (kept["forget_examples"], kept["retain_examples"]) == (
        measured.forget.example_count,
        measured.retain.example_count,
    )
    summary = diagnose(importance).summary.model_dump(mode="json")
    assert {key: kept[key] for key in summary} == summary
    assert set(kept["by_depth"]) == {"0", "1"}
    assert (finished_run / "report.html").read_text().count("<h2>Importance</h2>") == 1


@pytest.mark.parametrize("offload", ["host", "disk"])
def test_settings_reach_the_map_and_nothing_is_left_beside_it(offload: str, taught: Taught, tmp_path: Path):
    chosen = {
        "kind": "fila", "gradient_unit": "batch", "reduction": "sum",
        "batch_size": 3, "offload": offload,
    }  # fmt: skip
    settings = taught.settings(start=chosen, training={"epochs": 1}, evaluation={"skip": True})
    reporter = Lines()
    unlearn(settings, tmp_path / "run", reporter=reporter)
    assert not [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
    metadata = ImportanceMap.load(tmp_path / "run" / "importance.safetensors").metadata
    assert (metadata.gradient_unit, metadata.reduction) == ("batch", "sum")
    assert metadata.forget.sample_count == -(-metadata.forget.example_count // 3)
    assert any(line.startswith("Importance: rows in the same order by two halves") for line in reporter.lines)


def test_importance_command_says_the_same_and_writes_the_file_alone(taught: Taught, tmp_path: Path):
    settings = taught.settings(start={"kind": "variance_full", "offload": "disk"})
    lines = write_importance(settings, tmp_path / "new" / "map.safetensors")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["map.safetensors"]
    summary = diagnose(ImportanceMap.load(tmp_path / "new" / "map.safetensors")).summary
    assert lines[0].startswith("variance of full_weights: 14 modules, ")
    assert f"row weights of the median module: Gini {summary.gini:.2f}, 95th percentile over 5th " in "\n".join(lines)
    assert [line for line in lines if line.startswith("warning: ")] == [f"warning: {one}" for one in summary.warnings]
    assert lines[-1].startswith(f"written: {tmp_path / 'new' / 'map.safetensors'}")


@pytest.mark.parametrize(("key", "value"), [("gradient_unit", "batch"), ("reduction", "sum"), ("offload", "disk")])
def test_choice_that_the_released_arithmetic_does_not_have_is_refused(key: str, value: str, taught: Taught):
    with pytest.raises(InputError, match=f"start 'vila_published': unknown key 'start.{key}'"):
        chosen_start(taught.settings(start={"kind": "vila_published", key: value}))
