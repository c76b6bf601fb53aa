"""The released starting factors against their formulas in plain loops, from the measurement on."""

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.adapters.test_anchored import token_batch
from tests.importance import published_reference as literal
from tests.importance.test_published import BOTH, FORGET, RETAIN, literal_sums, measure
from tests.tiny import Architecture, build_tiny_model
from unlora.adapters import check_output_unmoved
from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.errors import InputError
from unlora.importance import ImportanceMap, estimate_importance
from unlora.importance.importance_map import FactoredImportance, FullImportance, ModuleImportance
from unlora.importance.published import PublishedSpace
from unlora.models.target_modules import find_target_modules
from unlora.starts.attach import attach_anchored_adapter
from unlora.starts.initialise import initial_factors
from unlora.starts.published_factors import published_factors, published_rows

UP = "model.layers.0.mlp.up_proj"


def assert_close(found: Tensor, wanted: Tensor) -> None:
    """1e-5 of the norm."""
    assert float((found.double() - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@BOTH
def test_factors_equal_the_formulas_from_measurement_to_start(arch: Architecture, space: PublishedSpace):
    model = build_tiny_model(arch).double()
    targets = find_target_modules(model)
    importance = measure(model, space)
    found = published_factors(targets, importance, rank=3, scaling=1.5, seed=5)
    forget, retain = literal_sums(arch, space)
    assert list(found) == list(targets)
    for name, start in found.items():
        scales = literal.row_scales(forget, retain, name, space)
        assert_close(published_rows(importance, name).scales, torch.tensor(scales, dtype=torch.float64))
        weight = targets[name].weight()
        lora_b, lora_a = literal.factors(weight, scales, rank=3, scaling=1.5, seed=5)
        assert_close(start.lora_b @ start.lora_a, lora_b @ lora_a)
        signs = torch.sign((start.lora_a * lora_a).sum(dim=1))  # the sign of a singular pair is free
        assert_close(start.lora_a, signs[:, None] * lora_a)
        assert_close(start.lora_b, signs * lora_b)
        diagonal = torch.tensor(scales, dtype=torch.float64)[:, None]
        lost = (diagonal * (weight - 1.5 * lora_b @ lora_a)).norm() / (diagonal * weight).norm()
        assert start.relative_residual == pytest.approx(float(lost), rel=1e-5)
        assert (start.lora_b.dtype, start.lora_a.dtype, start.status) == (torch.float32, torch.float32, "published")


def made_map(forget: Tensor, retain: Tensor, *, labels: tuple[int, int], dtype: str = "float32") -> ImportanceMap:
    """A map of one module with the given sums of squares."""
    measured = measure(build_tiny_model("llama"), "full_weights", target_modules=[UP]).metadata
    assert measured.retain is not None
    assert measured.published is not None
    metadata = measured.model_copy(
        update={
            "forget": measured.forget.model_copy(update={"token_count": labels[0]}),
            "retain": measured.retain.model_copy(update={"token_count": labels[1]}),
            "published": measured.published.model_copy(update={"accumulator_dtype": dtype}),
        }
    )
    return ImportanceMap({UP: ModuleImportance(FullImportance(forget), FullImportance(retain))}, metadata)


def test_row_scales_and_the_share_of_floored_denominators_by_hand():
    """Retain terms 3e-5 and 0: (8 / 4) / 4e-5 + (2 / 4) / 1e-5 = 1e5."""
    made = made_map(torch.tensor([[8.0, 2.0], [0.0, 0.0]]), torch.tensor([[6e-5, 0.0], [6e-5, 6e-5]]), labels=(4, 2))
    rows = published_rows(made, UP)
    assert rows.scales.tolist() == pytest.approx([1e5**0.5, 0.0], rel=1e-6)
    assert rows.floored_fraction == 0.25


def test_row_scales_are_computed_in_the_format_of_the_sums():
    forget = torch.rand(64, 32, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    coarse = published_rows(made_map(forget, forget, labels=(4, 2), dtype="bfloat16"), UP).scales
    fine = published_rows(made_map(forget, forget, labels=(4, 2)), UP).scales
    assert coarse.dtype == torch.bfloat16
    assert 0 < float((coarse.float() / fine - 1).abs().max()) < 0.01


def test_second_floor_shrinks_the_start_where_gradients_are_small():
    """Row scales of 1e-5 lose half of the extracted product, of 1e-6 ten elevenths: 1 / (1 + 1e-5 / d)."""
    targets = find_target_modules(build_tiny_model("llama"), [UP])
    products = []
    for scale in (1e3, 1e-5, 1e-6):
        forget = torch.full((64, 32), scale**2 * 1e-5 / 32)
        start = published_factors(
            targets, made_map(forget, torch.zeros(64, 32), labels=(1, 1)), rank=3, scaling=1.5, seed=5
        )[UP]
        products.append(float((start.lora_b @ start.lora_a).norm()))
    assert products[1] / products[0] == pytest.approx(1 / 2, rel=1e-3)
    assert products[2] / products[0] == pytest.approx(1 / 11, rel=1e-3)


def test_importance_that_vanishes_starts_at_zero():
    targets = find_target_modules(build_tiny_model("llama"), [UP])
    nothing = torch.zeros(64, 32)
    start = published_factors(targets, made_map(nothing, nothing, labels=(1, 1)), rank=3, scaling=1.5)[UP]
    assert not start.lora_a.any()
    assert not start.lora_b.any()
    assert start.relative_residual == 0.0


def test_global_random_state_is_put_back_and_the_seed_decides():
    model = build_tiny_model("llama")
    targets, importance = find_target_modules(model), measure(model, "lora_factors")
    state, seen = torch.get_rng_state(), []
    first, again, other = (
        published_factors(targets, importance, rank=3, scaling=1.5, seed=seed, progress=seen.append)[UP]
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert seen == [1] * 3 * len(targets)
    assert torch.equal(first.lora_b, again.lora_b)
    assert not torch.equal(first.lora_b, other.lora_b)


def test_adapter_starts_there_and_does_not_move_the_model():
    model = build_tiny_model("llama")
    importance = measure(model, "lora_factors")
    wanted = published_factors(find_target_modules(model), importance, rank=3, scaling=4.0)
    adapted = attach_anchored_adapter(model, importance, rank=3, alpha=12)
    assert check_output_unmoved(adapted, token_batch()).largest_difference < 1e-4
    for name, layer in lora_layers(adapted):
        lora_a, lora_b = factor_parameters(layer)
        assert torch.equal(lora_a.detach()[:3], wanted[name].lora_a)
        assert torch.equal(lora_b.detach()[:, :3], wanted[name].lora_b)


@pytest.mark.parametrize("measured", [True, False])
def test_a_map_of_the_intact_model_starts_an_adapter_by_our_arithmetic(measured: bool):
    model = build_tiny_model("llama")
    targets = find_target_modules(model)
    intact = estimate_importance(model, [token_batch()], [token_batch(4, 16)], preset="vila", rank=3)
    with pytest.raises(InputError, match="was not measured by the released procedure"):
        published_factors(targets, intact, rank=3, scaling=4.0)
    importance = intact if measured else None
    wanted = initial_factors(targets, importance, rank=3, scaling=4.0)
    adapted = attach_anchored_adapter(model, importance, rank=3, alpha=12)
    for name, layer in lora_layers(adapted):
        lora_a, lora_b = factor_parameters(layer)
        assert torch.equal(lora_a.detach()[:3], wanted[name].lora_a)
        assert torch.equal(lora_b.detach()[:, :3], wanted[name].lora_b)


def test_numbers_that_are_not_finite_are_refused():
    importance = measure(build_tiny_model("llama"), "lora_factors", target_modules=[UP])
    record = importance[UP].forget
    assert isinstance(record, FactoredImportance)
    broken = dataclasses.replace(record, lora_b=record.lora_b * float("inf"))
    importance = ImportanceMap({UP: ModuleImportance(broken, importance[UP].retain)}, importance.metadata)
    with pytest.raises(InputError, match=f"'{UP}' is not finite"):
        published_rows(importance, UP)


def test_rank_that_does_not_fit_is_refused():
    model = build_tiny_model("llama")
    importance = measure(model, "full_weights")
    with pytest.raises(InputError, match=r"adapter\.rank"):
        published_factors(find_target_modules(model), importance, rank=17, scaling=1.0)


def test_examples_are_more_than_one_batch():
    """Otherwise the variance of batch gradients would be zero, and nothing above would be tested."""
    assert len(FORGET) > 3
    assert len(RETAIN) > 3
