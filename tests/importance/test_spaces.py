"""Each space against explicit per-example gradients G_b = D_b^T X_b in float64."""

import itertools

import pytest
import torch
from torch import Tensor

from tests.importance.reference import assert_near, statistic_of
from unlora.importance import spaces
from unlora.importance.spaces import (
    LoraFactorStatistics,
    MarginalStatistics,
    example_energies,
    gram_is_cheaper,
    virtual_factors,
)

D_OUT, D_IN = 6, 5


def random_pair(batch_size: int, token_count: int = 3, *, d_out: int = D_OUT, d_in: int = D_IN, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(batch_size, token_count, d_in, generator=generator) + 0.5
    return inputs, torch.randn(batch_size, token_count, d_out, generator=generator) + 0.5


def explicit(inputs: Tensor, output_gradients: Tensor) -> Tensor:
    return torch.einsum("bto,bti->boi", output_gradients.double(), inputs.double())


@pytest.mark.parametrize(
    ("token_count", "d_out", "d_in", "cheaper"),
    # Square layers: both cost the same at T = d / 4.
    [(7, 32, 32, True), (8, 32, 32, False), (9, 32, 32, False), (144, 576, 576, False), (143, 576, 576, True),
     (1, 4, 4, False), (1, 1, 4096, False), (200, 4096, 11008, True)],
)  # fmt: skip
def test_gram_is_cheaper_by_count_of_multiplications(token_count: int, d_out: int, d_in: int, cheaper: bool):
    gram = sum(token_count * token_count * width for width in (d_in, d_out, d_out, d_in))
    assert (gram < token_count * d_out * d_in) == cheaper
    assert gram_is_cheaper(token_count, d_out, d_in) == cheaper


@pytest.mark.parametrize("token_count", [1, 4, 40])
def test_energies_are_the_same_by_gram_and_by_outer_product(token_count: int, monkeypatch: pytest.MonkeyPatch):
    inputs, output_gradients = random_pair(3, token_count, d_out=24, d_in=17)
    squares = explicit(inputs, output_gradients).square().sum(dim=0)
    for gram in (True, False):
        monkeypatch.setattr(spaces, "gram_is_cheaper", lambda *_, answer=gram: answer)
        rows, columns = example_energies(inputs, output_gradients)
        assert_near(rows.sum(dim=0), squares.sum(dim=1), 1e-5)
        assert_near(columns, squares.sum(dim=0), 1e-5)


def test_energy_of_a_vanishing_gradient_is_not_negative():
    # Equal inputs and output gradients that sum to zero: G = 0, while the Gram matrix is large.
    d = 64
    output_gradients = torch.randn(2, 8, d, generator=torch.Generator().manual_seed(3))
    output_gradients -= output_gradients.mean(dim=1, keepdim=True)
    inputs = 100 * torch.randn(2, 1, d, generator=torch.Generator().manual_seed(4)).expand(2, 8, d)
    assert gram_is_cheaper(8, d, d)
    rows, columns = example_energies(inputs, output_gradients)
    assert float(rows.min()) >= 0
    assert float(columns.min()) >= 0


def marginals(parts: list[tuple[Tensor, Tensor]], statistic: str) -> dict[str, Tensor]:
    statistics = MarginalStatistics()
    for inputs, output_gradients in parts:
        statistics.update(inputs, output_gradients)
    return statistics.read(statistic)  # pyright: ignore[reportArgumentType]


def test_variance_is_the_same_by_gram_and_by_outer_product(monkeypatch: pytest.MonkeyPatch):
    parts = [random_pair(4, 6, d_out=24, d_in=17, seed=seed) for seed in range(5)]  # two of them are paired
    read = {}
    for gram in (True, False):
        monkeypatch.setattr(spaces, "gram_is_cheaper", lambda *_, answer=gram: answer)
        read[gram] = marginals(parts, "variance")
    for name in ("rows", "columns"):
        assert_near(read[True][name], read[False][name].double(), 1e-5)


def test_variance_of_one_batch_is_the_sample_variance():
    pair = random_pair(7)
    wanted = statistic_of(explicit(*pair), "variance")
    found = marginals([pair], "variance")
    assert_near(found["rows"], wanted.sum(dim=1), 1e-5)
    assert_near(found["columns"], wanted.sum(dim=0), 1e-5)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1), (2, 2, 1), (1, 2, 2), (3, 2)])
def test_variance_averaged_over_all_orders_is_the_sample_variance(sizes: tuple[int, ...]):
    # A wide layer and a mean much smaller than the spread: no reading is clamped at zero.
    inputs, output_gradients = (tensor - 0.35 for tensor in random_pair(5, 8, d_out=40, d_in=50))
    wanted = statistic_of(explicit(inputs, output_gradients), "variance")
    rows, columns, first_rows = torch.zeros(40), torch.zeros(50), set()
    orders = list(itertools.permutations(range(5)))
    for order in orders:
        parts = (pair[list(order)].split(list(sizes)) for pair in (inputs, output_gradients))
        found = marginals(list(zip(*parts, strict=True)), "variance")
        assert float(found["rows"].min()) > 0, "a clamped reading would shift the mean"
        rows += found["rows"] / len(orders)
        columns += found["columns"] / len(orders)
        first_rows.add(round(float(found["rows"][0]), 3))
    assert len(first_rows) > 5, "every order gives the same: nothing is tested"
    assert_near(rows, wanted.sum(dim=1), 1e-5)
    assert_near(columns, wanted.sum(dim=0), 1e-5)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 6), (1, 1, 5)])
def test_example_alone_in_its_batch_is_paired_with_the_next_batch(sizes: tuple[int, ...]):
    inputs, output_gradients = random_pair(sum(sizes))
    parts = list(zip(inputs.split(list(sizes)), output_gradients.split(list(sizes)), strict=True))
    samples = explicit(inputs, output_gradients)
    paired = samples[: sum(sizes[:2])]
    count = len(paired)
    product = paired.sum(dim=0).square() - paired.square().sum(dim=0)
    wanted = samples.square().mean(dim=0).sum(dim=1) - product.sum(dim=1) / (count * (count - 1))
    assert_near(marginals(parts, "variance")["rows"], wanted.clamp(min=0), 1e-5)


def test_squared_mean_pools_every_fourth_batch():
    parts = [random_pair(3, 2 + index, seed=index) for index in range(9)]
    samples = [explicit(*part) for part in parts]
    numerator, pairs = torch.zeros(D_OUT, D_IN, dtype=torch.float64), 0
    for index in (0, 4, 8):
        numerator += samples[index].sum(dim=0).square() - samples[index].square().sum(dim=0)
        pairs += 6
    wanted = torch.cat(samples).square().mean(dim=0) - numerator / pairs
    found = marginals(parts, "variance")
    assert_near(found["rows"], wanted.sum(dim=1).clamp(min=0), 1e-5)
    assert_near(found["columns"], wanted.sum(dim=0).clamp(min=0), 1e-5)


def test_lone_samples_are_all_paired_two_by_two():
    inputs, output_gradients = random_pair(6)
    samples = explicit(inputs, output_gradients)
    product = sum((samples[index] * samples[index + 1]).sum(dim=1) for index in (0, 2, 4)) / 3
    wanted = samples.square().mean(dim=0).sum(dim=1) - product
    parts = list(zip(inputs.split(1), output_gradients.split(1), strict=True))
    assert_near(marginals(parts, "variance")["rows"], wanted.clamp(min=0), 1e-5)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="no sample"):
        marginals([], "second_moment")
    with pytest.raises(ValueError, match="two samples"):
        marginals([random_pair(1)], "variance")


def test_lora_factors_approach_the_outer_product_of_the_marginals():
    inputs, output_gradients = random_pair(4)
    wanted = marginals([(inputs, output_gradients)], "second_moment")
    outer = torch.outer(wanted["rows"], wanted["columns"]).double()
    rank, std = 2, 0.3

    def mean_product(seeds: range) -> Tensor:
        total = torch.zeros(D_OUT, D_IN, dtype=torch.float64)
        for seed in seeds:
            statistics = LoraFactorStatistics(
                *virtual_factors("layer", D_OUT, D_IN, rank=rank, probe_std=std, seed=seed)
            )
            statistics.update(inputs, output_gradients)
            found = statistics.read("second_moment")
            total += found["lora_b"].double() @ found["lora_a"].double()
        return total / len(seeds) / (rank * std**4)

    errors = [
        float((mean_product(seeds) - outer).norm() / outer.norm())
        for seeds in (range(0, 20), range(20, 340), range(340, 5460))
    ]
    # Sixteen times the draws, a quarter of the error: 0.02 at the end, with room for chance.
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05


def test_virtual_factors_depend_on_seed_and_name_and_have_the_asked_spread():
    lora_a, lora_b = virtual_factors("a", 300, 400, rank=8, probe_std=0.05, seed=1)
    assert (lora_a.shape, lora_b.shape) == ((8, 400), (300, 8))
    for factor in (lora_a, lora_b):
        assert abs(float(factor.std()) - 0.05) < 0.002
        assert abs(float(factor.mean())) < 0.003
    again, _ = virtual_factors("a", 300, 400, rank=8, probe_std=0.05, seed=1)
    assert torch.equal(lora_a, again)
    for name, seed in (("b", 1), ("a", 2)):
        assert not torch.equal(lora_a, virtual_factors(name, 300, 400, rank=8, probe_std=0.05, seed=seed)[0])
