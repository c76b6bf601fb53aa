"""Halves of a set and the share of the squared mean, against sums over explicit gradients."""

import itertools
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from tests.importance.reference import assert_near, batches_of, examples, gradients
from tests.tiny import build_tiny_model
from unlora.importance.accumulate import Sample, accumulate
from unlora.importance.estimate import estimate_importance
from unlora.importance.evidence import HalfSums
from unlora.importance.hooks import measuring
from unlora.importance.importance_map import ImportanceMap
from unlora.importance.moments import GradientUnit, StatisticName
from unlora.importance.spaces import (
    FullWeightStatistics,
    LoraFactorStatistics,
    MarginalStatistics,
    SpaceName,
    virtual_factors,
)
from unlora.models.target_modules import find_target_modules

FORGET = examples()  # Seven: halves of four and three.
RETAIN = examples(seed=2)
D_OUT, D_IN = 6, 5


def statistics_of(
    space: SpaceName, batch_size: int, gradient_unit: GradientUnit = "example"
) -> dict[str, FullWeightStatistics | MarginalStatistics | LoraFactorStatistics]:
    """Statistics of every module over the forget set."""
    model = build_tiny_model("llama")
    targets = find_target_modules(model)
    statistics = {}
    for name, target in targets.items():
        shape = target.d_out, target.d_in
        factors = virtual_factors(name, *shape, rank=3, probe_std=0.05, seed=4) if space == "lora_factors" else ()
        kinds = {"full_weights": FullWeightStatistics, "marginals": MarginalStatistics}
        statistics[name] = kinds[space]() if not factors else LoraFactorStatistics(*factors)
    with measuring(model):
        batches = batches_of(FORGET, batch_size)
        accumulate(model, targets, batches, statistics, set_name="forget", sample=Sample(gradient_unit))
    return statistics


def row_sums(tensors: dict[str, Tensor]) -> Tensor:
    """Rows of a statistic, as its evidence has them."""
    rows = {"rows": lambda one: one, "values": lambda one: one.sum(dim=1), "lora_b": lambda one: one.sum(dim=1)}
    (found,) = [rows[field](tensor) for field, tensor in tensors.items() if field in rows]
    return found


@pytest.mark.parametrize("space", get_args(SpaceName))
def test_union_of_the_halves_is_the_whole(space: SpaceName):
    for statistics in statistics_of(space, 3).values():
        halves = statistics.evidence().halves
        assert_near((4 * halves[0] + 3 * halves[1]) / 7, row_sums(statistics.read("second_moment")), 1e-5)


@pytest.mark.parametrize("space", get_args(SpaceName))
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_halves_are_every_other_example_whatever_the_batches(space: SpaceName, batch_size: int):
    found = statistics_of(space, batch_size)
    for name, samples in gradients("llama", FORGET).items():
        if space == "lora_factors":
            lora_a, _ = virtual_factors(name, *samples.shape[1:], rank=3, probe_std=0.05, seed=4)
            samples = samples @ lora_a.double().T
        energies = samples.square().sum(dim=2)
        halves = found[name].evidence().halves
        assert_near(halves[0], energies[[0, 2, 4, 6]].mean(dim=0))
        assert_near(halves[1], energies[[1, 3, 5]].mean(dim=0))


def test_by_batch_the_halves_are_every_other_batch():
    found = statistics_of("marginals", 3, "batch")
    for name, samples in gradients("llama", FORGET).items():
        energies = torch.stack([part.mean(dim=0).square().sum(dim=1) for part in samples.split(3)])
        halves = found[name].evidence().halves
        assert_near(halves[0], energies[[0, 2]].mean(dim=0))
        assert_near(halves[1], energies[1])


@pytest.mark.parametrize(("space", "statistic"), list(itertools.product(get_args(SpaceName), get_args(StatisticName))))
def test_map_keeps_what_the_halves_say(space: SpaceName, statistic: StatisticName, tmp_path: Path):
    """The same numbers from explicit gradients; on disk they are five a module."""
    model = build_tiny_model("llama")
    importance = estimate_importance(
        model, batches_of(FORGET, 3), batches_of(RETAIN, 3), space=space, statistic=statistic, rank=3, seed=4
    )
    importance.save(tmp_path / "map.safetensors")
    loaded = ImportanceMap.load(tmp_path / "map.safetensors")
    alone = statistics_of(space, 3)
    samples = {role: gradients("llama", some) for role, some in (("forget", FORGET), ("retain", RETAIN))}
    for name in importance:
        kept = importance[name].evidence
        assert kept is not None
        assert loaded[name].evidence == kept
        halves = {}
        for role in ("forget", "retain"):
            of_role = samples[role][name]
            if space == "lora_factors":
                lora_a, _ = virtual_factors(name, *of_role.shape[1:], rank=3, probe_std=0.05, seed=4)
                of_role = of_role @ lora_a.double().T
            energies = of_role.square().sum(dim=2)
            halves[role] = [energies[first::2].mean(dim=0) for first in (0, 1)]
            assert getattr(kept, f"{role}_stability") == pytest.approx(spearman(*halves[role]), abs=1e-3)
        assert kept.forget_squared_mean == pytest.approx(float(alone[name].evidence().squared_mean_share), rel=1e-6)
        ratios = [f / (r + 0.01 * r.mean()) for f, r in zip(halves["forget"], halves["retain"], strict=True)]
        assert kept.ratio_stability == pytest.approx(spearman(*ratios), abs=1e-3)


def spearman(first: Tensor, second: Tensor) -> float:
    return float(spearmanr(first.numpy(), second.numpy()).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def test_half_without_a_sample_is_nan():
    halves = HalfSums()
    halves.update(torch.tensor([[1.0, 2.0]]))
    assert halves.read()[0].tolist() == [1, 2]
    assert halves.read()[1].isnan().all()


def new(space: SpaceName):
    if space == "full_weights":
        return FullWeightStatistics()
    if space == "marginals":
        return MarginalStatistics()
    return LoraFactorStatistics(torch.eye(D_IN), torch.eye(D_OUT, D_IN))  # dB is G itself.


@pytest.mark.parametrize("space", get_args(SpaceName))
@pytest.mark.parametrize("shift", [0.0, 0.3, 3.0])
def test_share_of_the_squared_mean_in_one_batch_is_exact(space: SpaceName, shift: float):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(9, 3, D_IN, generator=generator) + shift
    output_gradients = torch.randn(9, 3, D_OUT, generator=generator) + shift
    statistics = new(space)
    statistics.update(inputs, output_gradients)
    samples = torch.einsum("bto,bti->boi", output_gradients.double(), inputs.double())
    # ||E g||^2 without bias: the mean over all ordered pairs of two different samples.
    pairs = [float((samples[a] * samples[b]).sum()) for a, b in itertools.permutations(range(9), 2)]
    wanted = sum(pairs) / len(pairs) / float(samples.square().sum(dim=(1, 2)).mean())
    assert float(statistics.evidence().squared_mean_share) == pytest.approx(wanted, abs=1e-5)
    assert (wanted > 0.5) == (shift == 3.0)


@pytest.mark.parametrize("space", get_args(SpaceName))
def test_share_scatters_around_zero_where_the_mean_is_zero(space: SpaceName):
    shares = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        statistics = new(space)
        for _ in range(3):
            inputs = torch.randn(4, 2, D_IN, generator=generator)
            statistics.update(inputs, torch.randn(4, 2, D_OUT, generator=generator))
        shares.append(float(statistics.evidence().squared_mean_share))
    found = torch.tensor(shares)
    assert found.min() < 0 < found.max()
    assert abs(float(found.mean())) < 4 * float(found.std()) / math.sqrt(len(shares))


@pytest.mark.parametrize("space", get_args(SpaceName))
def test_share_of_one_sample_or_of_none_that_moves_is_not_a_number(space: SpaceName):
    single, still = new(space), new(space)
    single.update(torch.ones(1, 3, D_IN), torch.ones(1, 3, D_OUT))
    still.update(torch.ones(4, 3, D_IN), torch.zeros(4, 3, D_OUT))
    assert single.evidence().squared_mean_share.isnan()
    assert still.evidence().squared_mean_share.isnan()
