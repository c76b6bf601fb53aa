from itertools import combinations

import numpy as np
import pytest
from scipy.stats import beta, binom

from unlora.errors import InputError
from unlora.metrics import expected_maximum, leak_probability_bound


@pytest.mark.parametrize("k", range(1, 8))
def test_expected_maximum_equals_the_mean_over_all_subsets(k: int) -> None:
    scores = np.random.default_rng(k).integers(0, 4, size=(5, 7)) / 3  # with ties
    expected = [np.mean([max(subset) for subset in combinations(row, k)]) for row in scores]
    assert expected_maximum(scores, k) == pytest.approx(expected)


def test_expected_maximum_of_hand_computed_samples() -> None:
    scores = np.array([[0.0, 1.0, 0.5], [0.2, 0.2, 0.2]])
    assert expected_maximum(scores, 1) == pytest.approx([0.5, 0.2])  # the mean
    assert expected_maximum(scores, 2) == pytest.approx([(0.5 + 1 + 1) / 3, 0.2])
    assert expected_maximum(scores, 3) == pytest.approx([1.0, 0.2])  # the maximum
    assert expected_maximum(np.array([[0.4]]), 1) == pytest.approx([0.4])
    assert expected_maximum(np.empty((0, 3)), 2).shape == (0,)


def test_expected_maximum_is_unbiased() -> None:
    scores = np.random.default_rng(0).random((20_000, 6))  # E[max of 4 uniform draws] = 4/5
    estimates = expected_maximum(scores, 4)
    assert estimates.mean() == pytest.approx(4 / 5, abs=4 * estimates.std() / np.sqrt(20_000))


def test_expected_maximum_of_many_samples_neither_overflows_nor_drifts() -> None:
    scores = np.zeros((1, 5000))
    scores[0, 0] = 1.0  # the one leak is among k of n with probability k/n
    assert expected_maximum(scores, 64) == pytest.approx([64 / 5000], rel=1e-9)
    assert expected_maximum(scores, 2500) == pytest.approx([0.5], rel=1e-9)


def test_expected_maximum_keeps_nan_at_its_example() -> None:
    scores = np.array([[0.1, np.nan, 0.3], [0.1, 0.2, 0.3]])
    for k in (1, 2, 3):
        assert np.isnan(expected_maximum(scores, k)).tolist() == [True, False]


@pytest.mark.parametrize("k", [0, 4])
def test_k_beyond_the_samples_is_refused(k: int) -> None:
    with pytest.raises(InputError, match=f"between 1 and the 3 samples drawn, found {k}"):
        expected_maximum(np.zeros((2, 3)), k)


def test_leak_bound_solves_the_tail_equation_and_is_one_sided() -> None:
    bound = leak_probability_bound(2, 50)
    assert binom.cdf(2, 50, bound) == pytest.approx(0.05)  # 2 leaks or fewer, were leaks that likely
    assert bound == pytest.approx(beta.ppf(0.95, 3, 48))


def test_leak_bound_at_the_ends() -> None:
    assert leak_probability_bound(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert leak_probability_bound(0, 1, confidence=0.9) == pytest.approx(0.9)
    assert leak_probability_bound(4, 4) == 1.0


def test_leak_bound_lies_below_the_true_probability_as_seldom_as_it_says() -> None:
    leaks = np.random.default_rng(0).binomial(40, 0.1, size=1000)
    bounds = {int(count): leak_probability_bound(int(count), 40) for count in set(leaks)}
    assert sum(bounds[int(count)] < 0.1 for count in leaks) / 1000 <= 0.06


@pytest.mark.parametrize(("leaks", "samples"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_of_leaks_are_refused(leaks: int, samples: int) -> None:
    with pytest.raises(InputError, match=f"{leaks} leaks in {samples} samples"):
        leak_probability_bound(leaks, samples)


def test_leak_bound_confidence_is_a_share() -> None:
    with pytest.raises(InputError, match="confidence must lie between 0 and 1, found 95"):
        leak_probability_bound(0, 5, confidence=95.0)
