import math

import pytest

from unlora.errors import InputError
from unlora.metrics import quantisation_robustness, recovery_ratio, relearning_robustness


@pytest.mark.parametrize(
    ("after", "unlearned", "target", "ratio"),
    [
        (0.1, 0.1, 0.9, 0.0),
        (0.5, 0.1, 0.9, 0.5),
        (0.9, 0.1, 0.9, 1.0),
        (1.0, 0.5, 0.75, 2.0),
        (0.0, 0.5, 1.0, -1.0),
        (-3.0, -5.0, -1.0, 0.5),
    ],
)
def test_recovery_of_hand_computed_values(after: float, unlearned: float, target: float, ratio: float) -> None:
    assert recovery_ratio(after, unlearned, target) == pytest.approx(ratio)
    assert recovery_ratio(1 - after, 1 - unlearned, 1 - target) == pytest.approx(ratio)  # the direction cancels


def test_recovery_without_a_loss_or_a_value_is_nan() -> None:
    assert math.isnan(recovery_ratio(0.5, 0.3, 0.3))
    assert math.isnan(recovery_ratio(math.nan, 0.1, 0.9))
    assert math.isnan(recovery_ratio(0.5, 0.1, math.nan))


@pytest.mark.parametrize(
    ("unlearned", "retain_only", "robustness"),
    [
        ((0.1, 0.5), (0.1, 0.2), 0.25),  # gains 0.4 and 0.1
        ((0.1, 0.2), (0.1, 0.2), 1.0),
        ((0.1, 0.2), (0.1, 0.5), 1.0),  # slower than the control: no better than as fast
        ((0.1, 0.5), (0.1, 0.1), 0.0),  # comes back, the control learns nothing
        ((0.1, 0.5), (0.2, 0.1), 0.0),
        ((0.1, 0.1), (0.1, 0.2), 1.0),  # nothing comes back
        ((0.2, 0.1), (0.1, 0.2), 1.0),
    ],
)
def test_relearning_robustness_of_hand_computed_gains(
    unlearned: tuple[float, float], retain_only: tuple[float, float], robustness: float
) -> None:
    assert relearning_robustness(*unlearned, *retain_only) == pytest.approx(robustness)


@pytest.mark.parametrize(
    "values",
    [
        (0.1, 0.1, 0.2, 0.2),
        (0.2, 0.1, 0.2, 0.1),
        (0.1, 0.1, 0.2, 0.1),
        (math.nan, 0.5, 0.1, 0.2),
        (0.1, 0.5, 0.1, math.nan),
        (0.2, 0.1, 0.1, math.nan),
    ],
)
def test_relearning_that_taught_neither_model_or_has_no_value_is_nan(values: tuple[float, ...]) -> None:
    assert math.isnan(relearning_robustness(*values))


@pytest.mark.parametrize(
    ("before", "after", "robustness"),
    [(0.1, 0.4, 0.25), (0.4, 0.1, 1.0), (0.3, 0.3, 1.0), (0.0, 0.2, 0.0), (0.0, 0.0, 1.0), (0.2, 0.0, 1.0)],
)
def test_quantisation_robustness_of_hand_computed_values(before: float, after: float, robustness: float) -> None:
    assert quantisation_robustness(before, after) == pytest.approx(robustness)


def test_quantisation_robustness_of_unscored_and_negative_values() -> None:
    assert math.isnan(quantisation_robustness(math.nan, 0.2))
    assert math.isnan(quantisation_robustness(0.2, math.nan))
    for values in ((-0.1, 0.2), (0.2, -0.1)):
        with pytest.raises(InputError, match=r">= 0 .*found -0\.1"):
            quantisation_robustness(*values)
