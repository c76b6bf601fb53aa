"""Means and ratios of example numbers, against plain loops over resamples."""

import numpy as np
import pytest

from unlora.audit.estimates import mean_estimate, ratio_estimate

NAN = float("nan")


def test_mean_leaves_unscored_out_and_counts_them():
    found = mean_estimate(np.array([0.2, NAN, 0.6, 0.4]), seed=0, note="here")
    assert found.value == pytest.approx(0.4)
    assert (found.example_count, found.unscored_count, found.note) == (3, 1, "here")
    assert found.low is not None
    assert found.high is not None
    assert 0.2 <= found.low < 0.4 < found.high <= 0.6


def test_mean_of_one_has_no_interval_and_of_none_no_value():
    one, none = mean_estimate(np.array([0.3, NAN]), seed=0), mean_estimate(np.array([NAN, NAN]), seed=0)
    assert (one.value, one.low, one.high, one.example_count, one.unscored_count) == (0.3, None, None, 1, 1)
    assert (none.value, none.low, none.example_count, none.unscored_count) == (None, None, 0, 2)
    assert none.note


def test_ratio_is_of_means_and_its_interval_draws_whole_examples():
    numerator, denominator = np.array([0.1, 0.8, 0.5, NAN, 0.4]), np.array([0.2, 1.0, 0.5, 0.9, 0.4])
    found = ratio_estimate(numerator, denominator, seed=0)
    assert found.value == pytest.approx(1.8 / 2.1)
    assert (found.example_count, found.unscored_count) == (4, 1)
    generator = np.random.default_rng(7)
    pairs = [(0.1, 0.2), (0.8, 1.0), (0.5, 0.5), (0.4, 0.4)]
    drawn = []
    for _ in range(20_000):
        chosen = [pairs[index] for index in generator.integers(0, 4, 4)]
        drawn.append(sum(above for above, _ in chosen) / sum(below for _, below in chosen))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.01)


def test_ratio_of_a_fixed_share_has_no_width():
    """Numerator and denominator go together: drawn apart, the interval would be wide."""
    denominator = np.linspace(0.1, 1.0, 10)
    found = ratio_estimate(0.7 * denominator, denominator, seed=0)
    assert (found.value, found.low, found.high) == pytest.approx((0.7, 0.7, 0.7))


def test_ratio_without_anything_to_divide_by_has_no_value():
    for numerator, denominator in (([NAN, 0.1], [0.2, NAN]), ([0.1, 0.2], [0.0, 0.0])):
        found = ratio_estimate(np.array(numerator), np.array(denominator), seed=0)
        assert found.value is None
        assert found.note
    assert ratio_estimate(np.array([0.1]), np.array([0.2]), seed=0).low is None
