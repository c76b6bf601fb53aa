"""Running sums of batch gradients, in the number formats they are kept in."""

import pytest
import torch

from unlora.importance.batch_sums import BatchSums

LEAF = ("layer", "values")


def filled(dtype: torch.dtype, gradients: list[float], counts: list[int], *, centred: bool = True) -> BatchSums:
    sums = BatchSums(dtype, centred=centred)
    for gradient, count in zip(gradients, counts, strict=True):
        sums.label_count += count
        sums.add(LEAF, torch.tensor([gradient]), count)
    return sums


def test_variance_and_second_moment_by_hand():
    """Batches of 1 and 3 labels with gradients 4 and 2: S1 = 10, S2 = 28, N = 4, V = 7 - 6.25."""
    assert filled(torch.float32, [4.0, 2.0], [1, 3]).read(LEAF).tolist() == [0.75]
    assert filled(torch.float32, [4.0, 2.0], [1, 3], centred=False).read(LEAF).tolist() == [28.0]


def test_variance_is_not_below_zero():
    for gradient in (0.1, 0.3, 0.7, 1.1):
        assert float(filled(torch.float32, [gradient] * 7, [3, 5, 7, 9, 11, 13, 17]).read(LEAF)) >= 0


def test_bfloat16_sum_of_ones_stops_at_256():
    """8 significant bits: 256 + 1 rounds to 256."""
    sums = filled(torch.bfloat16, [1.0] * 1000, [1] * 1000, centred=False)
    assert sums.read(LEAF).tolist() == [256.0]
    assert filled(torch.float32, [1.0] * 1000, [1] * 1000, centred=False).read(LEAF).tolist() == [1000.0]


def test_every_step_is_rounded_as_a_bfloat16_program_rounds_it():
    gradients, counts = torch.randn(50, generator=torch.Generator().manual_seed(0)).tolist(), [3, 7, 11, 5, 2] * 10

    def rounded(value: float) -> float:
        return float(torch.tensor(value, dtype=torch.float64).bfloat16())

    first = second = 0.0
    for gradient, count in zip(gradients, counts, strict=True):
        gradient = rounded(gradient)
        first = rounded(first + rounded(count * gradient))
        second = rounded(second + rounded(count * rounded(gradient * gradient)))
    mean = rounded(first / sum(counts))
    wanted = max(0.0, rounded(rounded(second / sum(counts)) - rounded(mean * mean)))
    assert filled(torch.bfloat16, gradients, counts).read(LEAF).tolist() == [wanted]


def test_leaf_without_a_gradient_is_missing():
    with pytest.raises(KeyError):
        filled(torch.float32, [1.0], [1]).read(("other", "values"))
