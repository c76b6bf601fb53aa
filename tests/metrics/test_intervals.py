import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from unlora.errors import InputError
from unlora.metrics import mean_interval, proportion_interval


def test_mean_interval_is_near_the_normal_one_for_many_examples() -> None:
    values = np.random.default_rng(0).random(500)
    half = norm.ppf(0.975) * values.std() / math.sqrt(500)
    low, high = mean_interval(values)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_mean_interval_equals_a_plain_loop_of_resamples() -> None:
    values = np.array([0.0, 0.2, 0.2, 1.0, 0.7])
    generator = np.random.default_rng(3)
    means = [generator.choice(values, size=5).mean() for _ in range(20_000)]
    expected = np.quantile(means, [0.05, 0.95])
    assert mean_interval(values, confidence=0.9, resamples=20_000) == pytest.approx(expected, abs=0.02)


def test_mean_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    intervals = [mean_interval(generator.exponential(size=60), seed=i, resamples=300) for i in range(300)]
    covered = sum(low <= 1 <= high for low, high in intervals)
    assert 0.89 <= covered / 300 <= 0.98  # skewed values: the percentile method stays a little short of 0.95


def test_mean_interval_is_repeatable_and_wider_with_more_confidence() -> None:
    values = np.random.default_rng(2).random(30)
    narrow, wide = mean_interval(values, confidence=0.8), mean_interval(values, confidence=0.99)
    assert narrow == mean_interval(values, confidence=0.8)
    assert wide.low < narrow.low < values.mean() < narrow.high < wide.high


def test_mean_interval_of_equal_values_has_no_width() -> None:
    assert mean_interval(np.zeros(5)) == (0.0, 0.0)
    assert all(math.isnan(end) for end in mean_interval(np.array([0.3])))


@pytest.mark.parametrize("bad", [np.empty(0), np.array([0.5, np.nan])])
def test_mean_interval_of_unscored_examples_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="mean_interval: values must hold"):
        mean_interval(bad)


def test_proportion_interval_solves_the_two_tail_equations() -> None:
    low, high = proportion_interval(3, 20)
    assert binom.sf(2, 20, low) == pytest.approx(0.025)  # 3 or more, were the share `low`
    assert binom.cdf(3, 20, high) == pytest.approx(0.025)


def test_proportion_interval_at_the_ends_has_its_closed_form() -> None:
    assert proportion_interval(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))
    assert proportion_interval(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert proportion_interval(0, 1, confidence=0.9) == pytest.approx((0.0, 0.95))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_proportion_interval_of_impossible_counts_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(InputError, match=f"{successes} of {trials}"):
        proportion_interval(successes, trials)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(InputError, match="confidence must lie between 0 and 1"):
        mean_interval(np.array([0.1, 0.2]), confidence=confidence)
    with pytest.raises(InputError, match="confidence must lie between 0 and 1"):
        proportion_interval(1, 2, confidence=confidence)
