"""Diagnostics in cases small enough to do by hand, and on sets of which the answer is known."""

import math
from dataclasses import replace

import numpy
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from tests.importance.reference import batches_of, examples
from tests.tiny import build_tiny_model
from unlora.importance.diagnostics import (
    MapDiagnostics,
    diagnose,
    dynamic_range,
    gini,
    module_evidence,
    rank_correlation,
)
from unlora.importance.estimate import IMPORTANCE_PRESETS, estimate_importance
from unlora.importance.evidence import HalfSums, SetEvidence
from unlora.importance.importance_map import (
    FactoredImportance,
    FullImportance,
    ImportanceMap,
    ImportanceMetadata,
    MarginalImportance,
    ModuleImportance,
    SetCounts,
)

FORGET, RETAIN = examples(), examples(seed=2)


@pytest.mark.parametrize(
    ("weights", "wanted"),
    # Mean absolute difference over all pairs, halved and over the mean: (1, 3): 1 / 2 / 2; (0, 0, 0, 8): 3 / 4.
    [([5, 5, 5], 0), ([1, 3], 0.25), ([3, 1], 0.25), ([0, 0, 0, 8], 0.75), ([1, 2, 3, 4], 0.25), ([7], 0)],
)
def test_gini_by_hand(weights: list[float], wanted: float):
    assert gini(torch.tensor(weights, dtype=torch.float32)) == pytest.approx(wanted)


def test_gini_is_half_the_relative_mean_difference():
    weights = torch.rand(200, generator=torch.Generator().manual_seed(0)) ** 3
    differences = (weights[:, None] - weights[None, :]).abs().double().mean()
    assert gini(weights) == pytest.approx(float(differences / weights.double().mean() / 2))
    assert math.isnan(gini(torch.zeros(3)))


def test_dynamic_range_is_a_quotient_of_percentiles():
    # Of 1, 2, ..., 21 the 5th percentile is the second value, the 95th the last but one.
    assert dynamic_range(torch.arange(1.0, 22.0)) == pytest.approx(10)
    assert dynamic_range(torch.full((9,), 4.0)) == 1
    assert dynamic_range(torch.tensor([0.0] * 10 + [1.0])) == math.inf


def test_rank_correlation_is_scipys():
    first, second = torch.rand(2, 40, generator=torch.Generator().manual_seed(0))
    first[:7] = 0.5
    wanted = spearmanr(first.numpy(), second.numpy()).statistic  # pyright: ignore[reportAttributeAccessIssue]
    assert rank_correlation(first, second) == pytest.approx(wanted)
    assert math.isnan(rank_correlation(first, torch.ones(40)))
    assert math.isnan(rank_correlation(first, torch.full((40,), math.nan)))


def measured(preset: str, forget: list, retain: list | None, size: int = 4) -> ImportanceMap:
    return estimate_importance(
        build_tiny_model("llama"),
        batches_of(forget, size),
        batches_of(retain, size) if retain is not None else None,
        preset=preset,
    )


@pytest.mark.parametrize("preset", IMPORTANCE_PRESETS)
def test_set_that_holds_every_example_twice_is_stable(preset: str):
    def twice(chosen: list) -> list:
        return [one for one in chosen for _ in range(2)]

    summary = diagnose(measured(preset, twice(FORGET), twice(RETAIN), 14)).summary
    for stability in (summary.forget_stability, summary.retain_stability, summary.ratio_stability):
        assert stability == pytest.approx(1, abs=1e-3)
    assert not [warning for warning in summary.warnings if "two halves" in warning]


def module_of(
    rows: tuple[Tensor, Tensor], halves: tuple[Tensor, Tensor] | None = None, shares: tuple[float, float] = (0, 0)
) -> ModuleImportance:
    """Marginals with these forget and retain rows, and columns of one."""
    forget, retain = (MarginalImportance(one, torch.ones(3)) for one in rows)
    if halves is None:
        return ModuleImportance(forget, retain)
    evidences = [SetEvidence(half, torch.tensor(float(share))) for half, share in zip(halves, shares, strict=True)]
    return ModuleImportance(forget, retain, module_evidence(*evidences))


def map_of(modules: dict[str, ModuleImportance]) -> ImportanceMap:
    counts = SetCounts(example_count=8, token_count=8, unscored_count=0)
    metadata = ImportanceMetadata(
        statistic="variance", space="marginals", rank=None, probe_std=None, seed=0, model_fingerprint=None,
        module_shapes=dict.fromkeys(modules, (1, 1)), forget=counts, retain=counts,
    )  # fmt: skip
    return ImportanceMap(modules, metadata)


def test_halves_of_noise_agree_by_chance_only_and_are_warned_of():
    generator = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        halves = HalfSums()
        for _ in range(3):
            halves.update(torch.rand(4, 500, generator=generator))
        return halves.read()

    rows = torch.rand(500, generator=generator), torch.rand(500, generator=generator)
    found = diagnose(map_of({f"layers.{index}.a": module_of(rows, (noise(), noise())) for index in range(5)}))
    for module in found.modules:
        for value in (module.forget_stability, module.retain_stability, module.ratio_stability):
            # Of 500 independent pairs: a standard deviation of 0.045.
            assert value is not None
            assert abs(value) < 0.2
    assert [warning for warning in found.summary.warnings if warning.startswith("two halves of the examples")]


def test_stability_of_the_ratio_is_that_of_the_quotients():
    generator = torch.Generator().manual_seed(3)
    forget, retain = (torch.rand(2, 60, generator=generator) + 0.1 for _ in range(2))
    rows = torch.rand(60, generator=generator), torch.rand(60, generator=generator)
    (module,) = diagnose(map_of({"a": module_of(rows, (forget, retain))})).modules
    quotients = [forget[half] / (retain[half] + 0.01 * retain[half].mean()) for half in (0, 1)]
    wanted = spearmanr(quotients[0].numpy(), quotients[1].numpy()).statistic  # pyright: ignore[reportAttributeAccessIssue]
    assert module.ratio_stability == pytest.approx(wanted)
    assert module.forget_stability == pytest.approx(numpy.corrcoef(forget.argsort().argsort())[0, 1])


def random_rows(seed: int = 0) -> tuple[Tensor, Tensor]:
    first, second = torch.rand(2, 50, generator=torch.Generator().manual_seed(seed))
    return first, second


def test_flat_map_is_warned_of():
    flat = (torch.linspace(0.95, 1.05, 50), torch.ones(50))
    every = diagnose(map_of({"layers.0.a": module_of(flat), "layers.1.a": module_of(flat)})).summary
    assert every.flat_module_count == 2
    (warning,) = every.warnings
    assert warning.startswith("row weights are nearly uniform (Gini below 0.05) in all 2 modules, such as 'layers.0.a'")
    some = diagnose(map_of({"layers.0.a": module_of(random_rows()), "layers.1.a": module_of(flat)})).summary
    assert "in 1 of 2 modules, such as 'layers.1.a'" in some.warnings[0]
    none = diagnose(map_of({"layers.0.a": module_of(random_rows())})).summary
    assert (none.flat_module_count, none.warnings) == (0, ())


def test_energy_by_depth_and_projection_is_relative_to_the_whole_map():
    def rows(forget: float, retain: float) -> tuple[Tensor, Tensor]:
        return torch.tensor([forget, 0.0]), torch.tensor([0.0, retain])

    summary = diagnose(
        map_of(
            {
                "model.layers.0.mlp.up": module_of(rows(6, 1)),
                "model.layers.0.mlp.down": module_of(rows(2, 3)),
                "model.layers.11.mlp.up": module_of(rows(1, 2)),
                "model.layers.11.mlp.down": module_of(rows(3, 6)),
            }
        )
    ).summary
    # The whole map: 12 over 12. Block 0: 8 over 4; block 11: 4 over 8; up: 7 over 3; down: 5 over 9.
    assert summary.by_depth == pytest.approx({"0": 2, "11": 0.5})
    assert summary.by_projection == pytest.approx({"mlp.up": 7 / 3, "mlp.down": 5 / 9})


@pytest.mark.parametrize(
    ("record", "energy"),
    [
        (MarginalImportance(torch.tensor([1.0, 2.0]), torch.tensor([3.0])), 3),
        (FullImportance(torch.tensor([[1.0, 2.0], [3.0, 4.0]])), 10),
        (
            FactoredImportance(
                torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0, 2.0], [0.0, 3.0, 1.0]])
            ),
            16,
        ),
    ],
)
def test_energy_is_the_total_of_the_statistic(record, energy: float):
    (module,) = diagnose(map_of({"head": ModuleImportance(record, None)})).modules
    assert module.forget_energy == energy
    assert module.retain_energy is None


def test_what_is_not_known_is_none_and_json_takes_it():
    bare = module_of((torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])))
    nothing = SetEvidence(torch.full((2, 3), math.nan), torch.tensor(math.nan))
    lonely = replace(bare, evidence=module_evidence(nothing, None))
    found = diagnose(map_of({"a": bare, "layers.1.b": lonely}))
    for module in found.modules:
        assert module.forget_stability is module.ratio_stability is module.forget_squared_mean is None
        assert module.dynamic_range is None
    assert found.summary.forget_stability is None
    assert MapDiagnostics.model_validate_json(found.model_dump_json()) == found


def test_shares_of_the_squared_mean_are_medians_over_the_modules():
    rows = random_rows()
    halves = torch.stack(rows), torch.stack(rows)
    shares = [(0.1, 0.9), (0.4, 0.7), (0.3, -0.1)]
    summary = diagnose(
        map_of({f"layers.{index}.a": module_of(rows, halves, pair) for index, pair in enumerate(shares)})
    ).summary
    assert summary.forget_squared_mean == pytest.approx(0.3)
    assert summary.retain_squared_mean == pytest.approx(0.7)


def test_other_row_weights_are_diagnosed_in_place_of_the_ratios():
    importance = map_of({"a": module_of(random_rows())})
    (module,) = diagnose(importance, lambda _: (torch.tensor([1.0, 3.0]), 0.5)).modules
    assert (module.gini, module.floored_fraction) == (0.25, 0.5)


def test_map_without_a_retain_set_has_no_ratio():
    summary = diagnose(measured("marginal", FORGET, None)).summary
    assert summary.forget_stability is not None
    assert summary.retain_stability is summary.ratio_stability is summary.retain_squared_mean is None
    assert summary.by_depth == summary.by_projection == {}


@pytest.mark.parametrize("preset", IMPORTANCE_PRESETS)
def test_saved_map_has_the_same_diagnostics(preset: str, tmp_path):
    importance = measured(preset, FORGET, RETAIN)
    importance.save(tmp_path / "map.safetensors")
    assert diagnose(ImportanceMap.load(tmp_path / "map.safetensors")) == diagnose(importance)
