import math

import numpy as np
import pytest

from unlora.errors import InputError
from unlora.metrics import forget_quality


def test_identical_samples_cannot_be_told_apart() -> None:
    sample = np.array([0.3, 0.3, 0.7, 1.2])  # with a tie
    result = forget_quality(sample, sample.copy())
    assert (result.p_value, result.log10_p, result.statistic) == (1.0, 0.0, 0.0)


def test_separated_samples_have_the_exact_p_value() -> None:
    result = forget_quality(np.arange(5.0), np.arange(5.0) + 10)
    assert result.statistic == 1.0
    assert result.p_value == pytest.approx(2 / math.comb(10, 5))  # two of the orderings are this extreme
    assert result.log10_p == pytest.approx(math.log10(2 / 252))


def test_direction_of_the_ratio_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    unlearned, retain_only = generator.lognormal(size=60), generator.lognormal(0.6, size=50)
    result, inverse = forget_quality(unlearned, retain_only), forget_quality(1 / unlearned, 1 / retain_only)
    swapped = forget_quality(retain_only, unlearned)
    assert result.p_value == pytest.approx(inverse.p_value, rel=1e-9)
    assert result.p_value == pytest.approx(swapped.p_value, rel=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_than_four_questions_have_no_p_value(count: int) -> None:
    """Samples that do not overlap at all would give 1, 1/3 and 1/10: no sign of anything."""
    result = forget_quality(np.arange(count, dtype=float), np.arange(9, dtype=float) + 100)
    assert math.isnan(result.p_value)
    assert math.isnan(result.log10_p)
    assert result.statistic == 1


@pytest.mark.parametrize(("here", "there"), [(4, 4), (4, 9), (30, 7)])
def test_the_smallest_p_value_is_that_of_samples_apart(here: int, there: int) -> None:
    result = forget_quality(np.arange(here, dtype=float), np.arange(there, dtype=float) + 100)
    assert result.p_value == pytest.approx(result.smallest_p)


@pytest.mark.parametrize("bad", [np.empty(0), np.array([0.5, np.nan])])
def test_empty_or_unscored_sample_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="unlearned_ratios: must hold"):
        forget_quality(bad, np.array([0.5]))
    with pytest.raises(InputError, match="retain_only_ratios: must hold"):
        forget_quality(np.array([0.5]), bad)
