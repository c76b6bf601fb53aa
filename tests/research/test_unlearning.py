"""A cell that unlearns at several learning rates."""

import math
from pathlib import Path

import pytest

from unlora.artifacts import read_json
from unlora.errors import TrainingDivergedError
from unlora.run.settings import UnlearnSettings
from unlora.suites.tofu.scores import TOFU_FILE
from unlora_research import unlearning
from unlora_research.engine import Workplace
from unlora_research.small_world import TINY_WORLD, SmallWorldFiles, build_small_world
from unlora_research.unlearning import small_world_run, unlearn_at_rates, unlearn_from

RATES = (1e-9, 2e-2)
ADAPTER = {"adapter": {"rank": 2, "alpha": 4}}


@pytest.fixture
def files() -> SmallWorldFiles:
    return build_small_world(TINY_WORLD)


def test_rates_share_one_measurement_and_a_cell_that_is_started_again_repeats_nothing(
    files: SmallWorldFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base = small_world_run(files, "cpu", epochs=3)
    alone = unlearn_at_rates(base, "contrast", ADAPTER, RATES[1:], 0, Workplace(tmp_path / "alone", "cpu"))
    place = Workplace(tmp_path / "both", "cpu")
    both = unlearn_at_rates(base, "contrast", ADAPTER, RATES, 0, place)
    assert [row["learning_rate"] for row in both] == list(RATES)
    measures = [key for key in alone[0] if key.startswith(("validation", "test", "first", "final"))]
    assert len(measures) > 10
    same = {key: pytest.approx(alone[0][key], rel=0, abs=0, nan_ok=True) for key in measures}
    assert {key: both[1][key] for key in measures} == same
    stages = [read_json(place.folder / f"lr{rate:g}" / "record.json")["stages"] for rate in RATES]
    assert ["importance" in one for one in stages] == [True, False]
    # A learning rate of nothing forgets nothing; the other does.
    assert both[0]["test_balance"] == pytest.approx(0.0, abs=1e-3)
    assert float(both[1]["test_balance"] or 0) > 0.2

    monkeypatch.setattr("unlora.recipes.unlearn.train", lambda *_: pytest.fail("trained again"))
    again = unlearn_at_rates(base, "contrast", ADAPTER, RATES, 0, place)
    for row, same_row in zip(again, both, strict=True):
        assert row == {
            key: pytest.approx(value, rel=0, abs=0, nan_ok=True) if isinstance(value, float) else value
            for key, value in same_row.items()
        }


def test_halves_are_every_other_question(files: SmallWorldFiles, tmp_path: Path):
    place = Workplace(tmp_path / "cell", "cpu")
    (row,) = unlearn_at_rates(small_world_run(files, "cpu", epochs=1), "plain", ADAPTER, [1e-2], 0, place)
    examples = TOFU_FILE.load(place.folder / "lr0.01" / "scores" / "unlearned.jsonl").sets["forget"]
    for name, first in unlearning.HALVES.items():
        half = [one.probability for one in examples[first::2]]
        assert row[f"{name}_forget_probability"] == pytest.approx(math.fsum(half) / len(half), rel=1e-6)


def test_later_changes_win_and_a_run_that_diverges_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[UnlearnSettings] = []

    def diverge(settings: UnlearnSettings, _: Path) -> None:
        asked.append(settings)
        raise TrainingDivergedError("training")

    monkeypatch.setattr(unlearning, "unlearn", diverge)
    base = {"model": {"name": "m"}, "data": {"forget": "f", "retain": "r"}, "training": {"epochs": 3}, "seed": 1}
    assert not unlearn_from("plain", tmp_path, base, {"training": {"learning_rate": 0.5}}, {"seed": 2})
    (settings,) = asked
    assert (settings.training.epochs, settings.training.learning_rate, settings.seed) == (3, 0.5, 2)
