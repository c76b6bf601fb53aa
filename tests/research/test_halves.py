"""Chosen on one half, reported on the other."""

import math

import pytest

from tests.suites.tofu.made_scores import made_score
from unlora.suites.scores import ModelScores
from unlora_research.halves import HalfResult, balance, half, half_result


def scores(forget: list[float], retain: list[float]) -> ModelScores:
    sets = {
        "forget": tuple(made_score(probability=one) for one in forget),
        "retain": tuple(made_score(probability=one) for one in retain),
    }
    return ModelScores(sets, {})


def test_halves_share_no_question_and_leave_none_out():
    whole = scores([0.1, 0.2, 0.3, 0.4, 0.5], [0.6, 0.7])
    first, second = half(whole, 0), half(whole, 1)
    assert [one.probability for one in first.sets["forget"]] == [0.1, 0.3, 0.5]
    assert [one.probability for one in second.sets["forget"]] == [0.2, 0.4]
    assert [one.probability for one in second.sets["retain"]] == [0.7]


def test_result_of_a_half():
    result = half_result(scores([0.9, 0.2, 0.7, 0.4], [1.0, 0.5]), scores([0.1] * 4, [1.0, 1.0]), 1)
    assert result.forget_probability == pytest.approx(0.3)
    assert result.retain_probability == pytest.approx(0.5)


def result(forget: float, retain: float) -> HalfResult:
    return HalfResult(forget, retain, 0.0, 0.0)


TARGET, RETAIN_ONLY = result(0.9, 0.8), result(0.1, 0.8)


@pytest.mark.parametrize(
    ("unlearned", "expected"),
    [
        (result(0.1, 0.8), 1.0),  # as the retain-only model
        (result(0.0, 0.8), 1.0),  # below it there is nothing to gain
        (result(0.9, 0.8), 0.0),  # nothing forgotten
        (result(0.0, 0.0), 0.0),  # nothing kept
        (result(0.5, 0.8), 2 * 0.5 / 1.5),
        (result(0.3, 0.6), 2 * 0.75 * 0.75 / 1.5),
        (result(0.95, 0.9), 0.0),  # worse than the target, and kept is no more than all
    ],
)
def test_balance_by_hand(unlearned: HalfResult, expected: float):
    assert balance(unlearned, TARGET, RETAIN_ONLY) == pytest.approx(expected)


def test_balance_is_zero_where_the_target_knows_no_more_than_the_retain_only_model():
    assert balance(result(0.0, 0.8), RETAIN_ONLY, RETAIN_ONLY) == 0.0
    assert not math.isnan(balance(result(0.0, 0.0), RETAIN_ONLY, RETAIN_ONLY))
