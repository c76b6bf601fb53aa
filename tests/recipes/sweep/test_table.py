"""What is said of the trials."""

from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from unlora.recipes.sweep.table import best_of, budgets, cells, page, trial_rows, warning


def trial(rate: float, distance: float, kept: float, *, held_out: float = 0.0, steps: int = 10) -> FrozenTrial:
    def part(balance: float) -> dict[str, Any]:
        return {"distance": distance, "kept": kept, "balance": balance}

    return create_trial(
        values=[distance, kept],
        params={"rate": rate},
        distributions={"rate": FloatDistribution(0, 1)},
        user_attrs={
            "validation": part((1 - distance + kept) / 2),
            "held_out": part(held_out),
            "steps": steps,
            "seconds": 1.5,
        },
    )


def failed() -> FrozenTrial:
    space = {"rate": FloatDistribution(0, 1)}
    attrs = {"failed": "step 3: diverged | here"}
    return create_trial(state=TrialState.FAIL, params={"rate": 0.9}, distributions=space, user_attrs=attrs)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    plain = [trial(0.1, 0.3, 0.9), failed(), trial(0.2, 0.1, 0.8, held_out=0.7, steps=20)]
    return trial_rows({"plain": plain, "marginal": [trial(0.3, 0.2, 0.7), trial(0.4, 0.4, 0.95), failed()]})


def test_the_front_is_that_of_all_starts(rows: list[dict[str, Any]]):
    assert [row["on_front"] for row in rows] == [True, False, True, False, True, False]


def test_the_best_is_chosen_on_validation_alone(rows: list[dict[str, Any]]):
    best = best_of(rows)
    assert best is not None
    assert (best["start"], best["trial"], best["held_out"]["balance"]) == ("plain", 2, 0.7)
    assert best_of([row for row in rows if row["failed"]]) is None


def test_every_start_had_the_same_number_of_trials(rows: list[dict[str, Any]]):
    plain, marginal = budgets(rows)
    assert (plain["trials"], plain["failed"], plain["steps"], plain["seconds"], plain["best"]) == (3, 1, 30, 3.0, 2)
    assert (marginal["trials"], marginal["failed"], marginal["best"]) == (3, 1, 1)
    assert (plain["validation"], plain["held_out"]) == pytest.approx((0.85, 0.7))


def test_the_warning_has_both_figures(rows: list[dict[str, Any]]):
    best = best_of(rows)
    assert best is not None
    assert warning(rows, best).startswith("The best of 6 trials is optimistic: balance 0.850 on the questions it was")
    assert "0.700 on the held-out ones" in warning(rows, best)


def test_the_page_has_every_trial_in_whole_lines(rows: list[dict[str, Any]]):
    best = best_of(rows)
    assert best is not None
    text = page(rows, best)
    assert "trial 2 of start plain (rate 0.2)" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 2 + 2 + 6
    assert "failed: step 3: diverged \\| here" in text
    assert cells(rows[1])[3:9] == ["–"] * 6
