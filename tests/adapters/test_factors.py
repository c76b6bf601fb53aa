"""Algebra of adapters, against the dense updates they stand for."""

import pytest
import torch

from unlora.adapters.factors import Factors, concatenate, squeeze


def made(rank: int, *, seed: int, shapes: dict[str, tuple[int, int]]) -> dict[str, Factors]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: Factors(torch.randn(d_out, rank, generator=generator), torch.randn(rank, d_in, generator=generator))
        for name, (d_out, d_in) in shapes.items()
    }


def dense(factors: dict[str, Factors]) -> dict[str, torch.Tensor]:
    return {name: module.lora_b @ module.lora_a for name, module in factors.items()}


SHAPES = {"wide": (24, 40), "narrow": (5, 40), "tall": (40, 12)}


def test_concatenation_is_the_sum_of_the_updates():
    first, second = made(3, seed=0, shapes=SHAPES), made(2, seed=1, shapes=SHAPES)
    joined = concatenate(first, second)
    assert {module.lora_a.shape[0] for module in joined.values()} == {5}
    for name, update in dense(joined).items():
        torch.testing.assert_close(update, dense(first)[name] + dense(second)[name], atol=1e-5, rtol=0)


def test_concatenation_pads_modules_that_only_one_has():
    first = made(3, seed=0, shapes={"wide": (24, 40), "tall": (40, 12)})
    second = made(2, seed=1, shapes={"wide": (24, 40), "narrow": (5, 40)})
    joined = concatenate(first, second)
    assert list(joined) == ["wide", "tall", "narrow"]
    assert {module.lora_a.shape[0] for module in joined.values()} == {5}
    assert torch.equal(dense(joined)["tall"], dense(first)["tall"])
    assert torch.equal(dense(joined)["narrow"], dense(second)["narrow"])


@pytest.mark.parametrize("rank", [1, 4, 6])
def test_squeezing_is_the_truncated_svd_and_its_error(rank: int):
    factors = made(8, seed=2, shapes=SHAPES)
    squeezed, error = squeeze(factors, rank)
    lost = total = 0.0
    for name, update in dense(factors).items():
        u, values, v = torch.linalg.svd(update.double(), full_matrices=False)
        best = (u[:, :rank] * values[:rank] @ v[:rank]).float()
        torch.testing.assert_close(dense(squeezed)[name], best, atol=1e-4, rtol=0)
        lost += float((update - best).square().sum())
        total += float(update.square().sum())
    assert error == pytest.approx((lost / total) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("rank", [8, 100])
def test_squeezing_to_the_full_rank_loses_nothing_and_keeps_one_rank(rank: int):
    """The module of 5 rows has rank 5 at most; the adapter still has one rank, 8."""
    factors = made(8, seed=3, shapes=SHAPES)
    squeezed, error = squeeze(factors, rank)
    assert error < 1e-9
    assert {module.lora_a.shape[0] for module in squeezed.values()} == {8}
    assert {module.lora_b.shape[1] for module in squeezed.values()} == {8}
    for name, update in dense(factors).items():
        torch.testing.assert_close(dense(squeezed)[name], update, atol=1e-4, rtol=0)


def test_squeezing_balances_the_factors_and_survives_an_empty_update():
    factors = made(4, seed=4, shapes={"wide": (24, 40)})
    squeezed, _ = squeeze({"wide": Factors(factors["wide"].lora_b * 1e4, factors["wide"].lora_a * 1e-4)}, 2)
    assert float(squeezed["wide"].lora_b.norm() / squeezed["wide"].lora_a.norm()) == pytest.approx(1, rel=1e-4)
    nothing = Factors(torch.zeros(24, 4), torch.zeros(4, 40))
    empty, error = squeeze({"wide": nothing}, 2)
    assert error == 0
    assert not dense(empty)["wide"].any()
