"""The table of recipes: a row by hand, and the study from the tiny world to its table."""

import math
from pathlib import Path

import pytest
import torch

from unlora.audit.settings import RelearningSettings
from unlora.starts.selective import Selective
from unlora_research.control_starts import RandomDirections
from unlora_research.depth import QUICK, Place, run_place
from unlora_research.depth_recipes import RECIPES
from unlora_research.depth_table import print_table, row_of
from unlora_research.small_world import SmallWorld, build_small_world
from unlora_research.unlearning import small_world_run


def courses(*means: float) -> dict:
    return {"tested": [0], "probability": [[mean] for mean in means]}


def test_a_row_holds_the_worst_of_each_lesson_and_keeps_apart_what_chose_the_recipes():
    names = ("a_few", "b_few", "c_few", "a_full")
    model = {
        "probability": [0.1],
        "target": [0.9],
        "courses": dict(zip(names, (courses(0.1, 0.5), courses(0.1, 0.2), courses(0.1, 0.4), None), strict=True)),
        "level": {"level": {"probability": 0.12, "low": 0.05, "high": 0.2}, "strength": 1.5},
        "kept": 0.8,
        "knew": 0.9,
        "seconds": {"importance": 1.0, "training": 5.0, "evaluation": 99.0},
    }
    control = {"courses": {**dict.fromkeys(names, courses(0.2, 0.3)), "a_full": courses(0.2, 0.3)}}
    row = row_of(model, control, ("a_few", "a_full"))
    assert row["chosen few"] == pytest.approx((0.4 - 0.1) / 0.8)
    assert row["few"] == pytest.approx((0.3 - 0.1) / 0.8)
    assert math.isnan(row["chosen full"])
    assert math.isnan(row["full"])
    assert (row["kept"], row["seconds"]) == (pytest.approx(0.8 / 0.9), 6.0)


def test_from_a_tiny_world_to_the_table(tmp_path: Path):
    world = SmallWorld.from_mapping({"seed": 0, **QUICK})
    course = RelearningSettings(steps=2, measure_every=2)
    place = Place(small_world_run(build_small_world(world), "cpu", epochs=1), 20.0, 8.0, 4, course)
    run_place(tmp_path / "world-0", place, {"deep": RECIPES["deep"]}, ["lora_5e-4_few"], seed=0)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "world-0").glob("*.json")}
    run_place(tmp_path / "world-0", place, {"deep": RECIPES["deep"]}, ["lora_5e-4_few"], seed=0)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    table = print_table(tmp_path, ("lora_5e-4_few",))
    assert "| `deep` | 1 |" in table
    assert "chosen few" in table
    assert (tmp_path / "frontier.png").is_file()


def test_random_directions_are_orthonormal_and_nothing_of_the_data_chooses_them():
    start = RandomDirections()
    moment = torch.diag(torch.arange(1.0, 13.0))
    basis = start.directions(moment, None, rank=5)
    assert torch.allclose(basis.T @ basis, torch.eye(5, dtype=basis.dtype), atol=1e-12)
    assert torch.equal(basis, start.directions(moment.flip(0, 1), moment, rank=5))
    chosen = Selective(skip=0.0).directions(moment, None, rank=5)
    assert float((chosen.T @ basis).square().sum()) < 4.9


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deep", {"rank": 40, "alpha": 40}),
        ("deep_narrower", {"rank": 28, "alpha": 28}),
        ("deep_narrow", {"rank": 20, "alpha": 20}),
        ("default", {}),
        ("default_narrow", {"rank": 4}),
    ],
)
def test_a_row_is_as_wide_as_its_place_or_as_it_says(name: str, expected: dict[str, int]):
    assert RECIPES[name].changes(scale=1.0, rank=40, seed=0)["adapter"] == expected
