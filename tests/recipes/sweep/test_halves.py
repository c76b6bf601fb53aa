"""Every other question chooses, the rest is reported."""

import json
import math
from pathlib import Path

import pytest

from unlora.errors import InputError
from unlora.recipes.sweep.halves import balance, measure_parts, part_of
from unlora.run.settings import UnlearnSettings
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.scores import TOFU_FILE, ExampleScore


def score(source: str, probability: float) -> ExampleScore:
    return ExampleScore(
        source, "q", "a", source, 3, math.log(probability), probability, 0, 0, None, math.nan, math.nan, ()
    )


def scores(forget: list[float], retain: list[float]) -> ModelScores[ExampleScore]:
    sets = {
        name: tuple(score(f"{name}, line {place}", one) for place, one in enumerate(values, start=1))
        for name, values in (("forget", forget), ("retain", retain))
    }
    return ModelScores(sets, {})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    TOFU_FILE.save(tmp_path / "scores" / "target.jsonl", scores([0.9, 0.8, 0.7, 0.6], [0.8, 0.9, 1.0, 0.9]))
    TOFU_FILE.save(tmp_path / "scores" / "unlearned.jsonl", scores([0.1, 0.4, 0.3, 0.2], [0.8, 0.45, 0.1, 0.45]))
    (tmp_path / "record.json").write_text(json.dumps({"level": {"level": {"probability": 0.25}}}))
    return tmp_path


def settings(**evaluation: str) -> UnlearnSettings:
    values = {"model": {"name": "m"}, "data": {"forget": "f", "retain": "r"}, "evaluation": evaluation}
    return UnlearnSettings.from_mapping(values)


def test_two_parts_by_the_level_that_the_run_aimed_at(run: Path):
    parts = measure_parts(run, settings())
    validation, held_out = parts["validation"], parts["held_out"]
    assert validation[:3] == pytest.approx((0.2, 0.25, 0.05))
    assert validation[3:5] == pytest.approx((0.45, 0.5))
    reached = 1 - 0.05 / (0.8 - 0.25)
    assert validation.balance == pytest.approx(2 * reached * 0.5 / (reached + 0.5))
    assert held_out[:5] == pytest.approx((0.3, 0.25, 0.05, 0.45, 0.5))


def test_the_retain_only_model_is_the_level_of_the_same_questions(run: Path):
    control = scores([0.5, 0.1, 0.3, 0.2], [1.0] * 4)
    turned = ModelScores({"forget": control.sets["forget"][::-1], "retain": control.sets["retain"]}, {})
    TOFU_FILE.save(run / "scores" / "retain_only.jsonl", turned)
    parts = measure_parts(run, settings(retain_only="folder"))
    assert [parts[name].level for name in ("validation", "held_out")] == pytest.approx([0.4, 0.15])
    TOFU_FILE.save(run / "other.jsonl", scores([0.5, 0.1, 0.3], [1.0]))
    with pytest.raises(InputError, match="has no score of forget, line 4"):
        measure_parts(run, settings(retain_only=str(run / "other.jsonl")))


def test_without_a_level_there_is_no_distance(run: Path):
    (run / "record.json").write_text("{}")
    with pytest.raises(InputError, match="no level"):
        measure_parts(run, settings())


def test_pieces_of_a_text_stay_together():
    examples = [score(f"f, line 1, part {number} of 3", 0.5) for number in (1, 2, 3)]
    examples += [score("f, line 2", 0.5), score("f, line 3", 0.5)]
    assert part_of(examples, 0) == [*examples[:3], examples[4]]
    assert part_of(examples, 1) == [examples[3]]


@pytest.mark.parametrize(
    ("distance", "way", "kept", "expected"),
    [(0.0, 0.5, 1.0, 1.0), (0.5, 0.5, 1.0, 0.0), (0.0, 0.5, 1.2, 1.0), (0.9, 0.5, 0.5, 0.0), (0.25, 0.5, 0.5, 0.5),
     (0.0, 0.0, 1.0, 1.0), (0.1, 0.0, 1.0, 0.0)],
)  # fmt: skip
def test_balance(distance: float, way: float, kept: float, expected: float):
    assert balance(distance, way, kept) == pytest.approx(expected)
