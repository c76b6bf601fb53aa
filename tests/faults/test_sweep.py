"""A sweep that is killed ends as if nothing had happened; each start has as many trials."""

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.recipes.processes import KILLED, Running, run
from tests.taught import Taught

TRIALS = 3
pytestmark = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="the extra sweep is not installed")


def write_config(taught: Taught, folder: Path) -> Path:
    """Two starts, three trials each in rounds of two, on the taught model."""
    values = {
        "settings": {
            "model": {"name": str(taught.target)},
            "data": {"forget": str(taught.forget), "retain": str(taught.retain), "template": "plain"},
            "adapter": {"rank": 4, "alpha": 8.0},
            "level": {"aim": 0.05},
            "training": {"batch_size": 4, "epochs": 2},
        },
        "search": {
            "training.learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
            "objective.forget": ["ihl", "npo"],
        },
        "starts": ["plain", "marginal"],
        "trials": TRIALS,
        "round": 2,
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


def without_times(value: Any) -> Any:
    """The same without seconds."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key != "seconds"}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def finished(folder: Path) -> int:
    """Trials whose evaluation is written."""
    return len(list(folder.glob("trials/*/*/evaluation.json")))


def test_killed_twice_a_sweep_ends_as_if_nothing_had_happened(taught: Taught, tmp_path: Path):
    config = write_config(taught, tmp_path)
    code, text = run(["sweep", str(config), "--output", str(tmp_path / "whole")])
    assert code == 0, text
    assert "warning: The best of 6 trials is optimistic" in text

    folder = tmp_path / "parts"
    arguments = ["sweep", str(config), "--output", str(folder)]
    for count, pause in ((1, 0.0), (3, 0.3)):  # in the middle of a round, and in the middle of a run
        running = Running(arguments)
        running.wait_for(lambda count=count: finished(folder) >= count)
        time.sleep(pause)
        running.kill()
        assert running.finish()[0] == KILLED
        assert not (folder / "sweep.json").exists()
    code, text = run(arguments)
    assert code == 0, text

    whole, parts = (json.loads((tmp_path / name / "sweep.json").read_text()) for name in ("whole", "parts"))
    assert without_times(parts) == without_times(whole)
    assert [one["trials"] for one in whole["starts"]] == [TRIALS, TRIALS]
    assert (tmp_path / "parts" / "best.yaml").read_bytes() == (tmp_path / "whole" / "best.yaml").read_bytes()
    assert (tmp_path / "parts" / "pareto.png").read_bytes() == (tmp_path / "whole" / "pareto.png").read_bytes()
    # What it names is a run, with the result that the sweep found.
    best, again = whole["best"], tmp_path / "best"
    code, text = run(["unlearn", str(folder / "best.yaml"), "--output", str(again)])
    assert code == 0, text
    of_trial = folder / "trials" / best["start"] / f"{best['trial']:03d}"
    weights = "adapter/adapter_model.safetensors"
    assert (again / weights).read_bytes() == (of_trial / weights).read_bytes()
