"""Streaming moments against numpy on all samples at once."""

import numpy
import pytest
import torch

from unlora.importance.moments import Moments, unbiased_variance


@pytest.mark.parametrize("sizes", [(12,), (1,) * 12, (5, 1, 0, 6)])
def test_moments_equal_numpy_in_any_batching(sizes: tuple[int, ...]):
    samples = torch.randn(12, 3, 4, generator=torch.Generator().manual_seed(0)) + 2
    moments = Moments()
    for part in samples.split(list(sizes)):
        moments.update(part)
    reference = samples.double().numpy()
    numpy.testing.assert_allclose(moments.read("variance"), reference.var(axis=0, ddof=1), rtol=2e-5)
    numpy.testing.assert_allclose(moments.read("second_moment"), (reference**2).mean(axis=0), rtol=2e-6)
    assert moments.count == 12


def test_variance_survives_a_mean_a_thousand_times_the_spread():
    # In float32, E[g^2] - E[g]^2 would keep no digit: 1e6 +- 0.06 less 1e6.
    samples = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) + 1000
    moments = Moments()
    for part in samples.split(7):
        moments.update(part)
    numpy.testing.assert_allclose(moments.read("variance"), samples.double().numpy().var(axis=0, ddof=1), rtol=1e-3)


def test_bfloat16_samples_are_summed_in_float32():
    moments = Moments()
    moments.update(torch.full((300, 2), 1.5, dtype=torch.bfloat16))
    assert moments.read("second_moment").dtype == torch.float32
    assert moments.read("second_moment").tolist() == [2.25, 2.25]


def test_too_few_samples_are_refused():
    moments = Moments()
    with pytest.raises(ValueError, match="no sample"):
        moments.read("second_moment")
    moments.update(torch.ones(1, 2))
    assert moments.read("second_moment").tolist() == [1, 1]
    with pytest.raises(ValueError, match="two samples"):
        moments.read("variance")


def test_unbiased_variance_is_not_below_zero():
    assert unbiased_variance(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.5])).tolist() == [2, 0]


@pytest.mark.parametrize("centred", [True, False])
def test_samples_one_by_one_or_merged_are_the_same_moments(centred: bool):
    samples = torch.randn(9, 3, 4, generator=torch.Generator().manual_seed(1)) + 2
    one_by_one, merged = Moments(centred=centred), Moments(centred=centred)
    for sample in samples.clone():
        one_by_one.add(sample)
    for part in samples.split((4, 1, 4)):
        batch = Moments()
        for sample in part.clone():
            batch.add(sample)
        merged.merge(batch)
    reference = samples.double().numpy()
    for moments in (one_by_one, merged):
        assert moments.count == 9
        numpy.testing.assert_allclose(moments.read("second_moment"), (reference**2).mean(axis=0), rtol=2e-6)
        if centred:
            numpy.testing.assert_allclose(moments.read("variance"), reference.var(axis=0, ddof=1), rtol=2e-5)
        else:
            assert moments.mean is None
            with pytest.raises(ValueError, match="deviations from zero"):
                moments.read("variance")


def test_only_centred_moments_with_samples_can_be_merged():
    for other in (Moments(), Moments(centred=False)):
        with pytest.raises(ValueError, match="only a centred accumulator that has samples"):
            Moments().merge(other)
