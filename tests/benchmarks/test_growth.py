"""Slopes and bends of curves that are known."""

import math

import pytest

from benchmarks.growth import fit

POINTS = (16, 32, 64, 128, 256, 512)


@pytest.mark.parametrize("power", [-1.0, 0.0, 1.0, 2.0])
def test_a_power_is_its_slope_and_does_not_bend(power: float):
    found = fit(POINTS, [3 * x**power for x in POINTS])
    assert found.slope == pytest.approx(power, abs=1e-9)
    assert found.bend is None


def test_a_bend_is_found_where_it_is():
    found = fit(POINTS, [2.0 * max(1, x / 64) for x in POINTS])
    assert found.bend == pytest.approx(64)
    assert found.before == pytest.approx(0, abs=1e-9)
    assert found.after == pytest.approx(1)


def test_noise_does_not_bend_a_line():
    noise = (1.05, 0.97, 1.02, 0.96, 1.04, 0.99)
    found = fit(POINTS, [x * factor for x, factor in zip(POINTS, noise, strict=True)])
    assert found.slope == pytest.approx(1, abs=0.05)
    assert found.bend is None


def test_a_sum_of_two_powers_goes_from_the_smaller_to_the_larger():
    found = fit(POINTS, [x + (x / 100) ** 4 for x in POINTS])
    assert found.bend is not None
    assert found.before is not None
    assert found.after is not None
    assert 1 <= found.before < found.slope < found.after < 4
    assert not math.isnan(found.slope)
