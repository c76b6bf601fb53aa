"""Which attackers are chosen, worked out by hand, and the study from the tiny world to its tables."""

import math

import pytest

from unlora_research.attacker_choice import choice_rows, choose, excess, share_found

FOUND = {
    "world-0/a": {"weak_few": 0.1, "strong_few": 0.5, "other_full": 0.2},
    "world-0/b": {"weak_few": 0.4, "strong_few": 0.1, "other_full": 0.8},
}


def record(*means: float) -> dict:
    return {"target": [0.9], "courses": {"one": {"tested": [0], "probability": [[mean] for mean in means]}}}


def test_excess_is_at_the_step_with_most_beyond_the_control() -> None:
    assert excess(record(0.1, 0.5, 0.7), record(0.2, 0.2, 0.6), "one") == pytest.approx(0.4 / 0.8)
    diverged = {"target": [0.9], "courses": {"one": None}}
    assert math.isnan(excess(diverged, record(0.2, 0.2), "one"))


def test_the_fewest_are_taken_that_find_nine_tenths_in_every_model() -> None:
    assert share_found(FOUND["world-0/a"], ["weak_few"]) == pytest.approx(0.2)
    assert set(choose(FOUND, ["weak_few", "strong_few"])) == {"weak_few", "strong_few"}
    assert choose(FOUND, ["other_full"]) == ["other_full"]
    rows = choice_rows(FOUND, ["strong_few", "other_full"])
    assert rows[0][-1] == "62% [25%, 100%]"
    assert rows[-1][-1] == "100% [100%, 100%]"
