"""The front of all starts: same model before and after, and the adapter starts at the target."""

import inspect
import re

import pytest
import torch

from tests.adapters.models import FORGET, RETAIN, broken, state_of, unusual
from tests.tiny import build_tiny_model
from unlora.adapters import attach_anchored_adapter, check_output_unmoved
from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.adapters.starts import STARTS, starting_factors
from unlora.errors import InputError
from unlora.models.target_modules import find_target_modules

ARCHITECTURES = ["llama", "gpt2"]
READS_DATA = [kind for kind, start in STARTS.items() if start.forget or start.retain]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", STARTS)
def test_every_start_leaves_the_output_at_the_targets(kind: str, arch: str):
    model, steps = build_tiny_model(arch), []
    targets = find_target_modules(model)
    factors = starting_factors(kind, model, targets, FORGET, RETAIN, rank=4, scaling=2.0, seed=1, progress=steps.append)
    assert list(factors) == list(targets)
    assert steps == [1] * len(targets)
    for name, start in factors.items():
        assert start.lora_a.shape == (4, targets[name].d_in)
        assert start.lora_b.shape == (targets[name].d_out, 4)
        assert start.status == kind
        assert bool(start.lora_b.any()) is (kind != "eva")
        assert start.relative_residual >= 0
    adapted = attach_anchored_adapter(model, rank=4, alpha=8, factors=factors)
    assert check_output_unmoved(adapted, FORGET[0]).largest_difference <= 1e-5
    for name, layer in lora_layers(adapted):
        assert torch.equal(factor_parameters(layer)[0][:4], factors[name].lora_a)


@pytest.mark.parametrize("kind", STARTS)
def test_bfloat16_model_starts_from_float32_factors_and_stays_as_it_is(kind: str):
    model = build_tiny_model("llama", layers=1).bfloat16()
    before, targets = state_of(model), find_target_modules(model)
    factors = starting_factors(kind, model, targets, FORGET, RETAIN, rank=2, scaling=2.0)
    assert state_of(model) == before
    for start in factors.values():
        assert start.lora_a.dtype == start.lora_b.dtype == torch.float32
        assert start.lora_a.isfinite().all()
        assert start.lora_b.isfinite().all()
    check_output_unmoved(attach_anchored_adapter(model, rank=2, alpha=4, factors=factors), FORGET[0])


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", STARTS)
def test_model_is_left_as_it_was_found(kind: str, arch: str):
    """Mixed modes, a frozen weight, a gradient and a hook on it, on all target layers and on some."""
    model = unusual(build_tiny_model(arch))
    before = state_of(model)
    for pattern in (["*"], ["model.layers.0.*" if arch == "llama" else "transformer.h.0.*"]):
        targets = find_target_modules(model, pattern)
        starting_factors(kind, model, targets, FORGET, RETAIN, rank=2, scaling=1.0)
        assert state_of(model) == before


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", READS_DATA)
def test_model_is_left_as_it_was_found_when_the_data_fail(kind: str, arch: str):
    model = unusual(build_tiny_model(arch))
    before, targets = state_of(model), find_target_modules(model)
    random = torch.get_rng_state()
    with pytest.raises(IndexError):
        starting_factors(kind, model, targets, broken(FORGET), broken(RETAIN), rank=2, scaling=1.0)
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("kind", STARTS)
def test_only_the_sets_that_a_start_names_are_read(kind: str):
    model = build_tiny_model("llama", layers=1)
    targets = find_target_modules(model, ["q_proj"])
    sets = [FORGET if STARTS[kind].forget else None, RETAIN if STARTS[kind].retain else None]
    assert starting_factors(kind, model, targets, *sets, rank=2, scaling=1.0)
    for row, set_name in enumerate(("forget", "retain")):
        if sets[row] is not None:
            fewer = [None if other == row else batches for other, batches in enumerate(sets)]
            with pytest.raises(InputError, match=f"start '{kind}': needs a {set_name} set"):
                starting_factors(kind, model, targets, *fewer, rank=2, scaling=1.0)


@pytest.mark.parametrize("kind", READS_DATA)
def test_model_with_an_adapter_is_refused(kind: str):
    model = build_tiny_model("llama", layers=1)
    attach_anchored_adapter(model, rank=2)
    with pytest.raises(InputError, match="already carries an adapter"):
        starting_factors(kind, model, find_target_modules(model), FORGET, RETAIN, rank=2, scaling=1.0)


def test_every_start_says_what_it_is_and_where_it_comes_from():
    for start in STARTS.values():
        assert start.summary
        assert re.search(r"arXiv \d{4}\.\d{5}$", start.source)


def test_unknown_start_is_refused():
    model = build_tiny_model("llama", layers=1)
    unchecked = inspect.unwrap(starting_factors)  # without the checks of types that only the test run has
    with pytest.raises(InputError, match=r"start 'lora-ga': is none of olora, .* Did you mean 'lora_ga'\?"):
        unchecked("lora-ga", model, {}, None, None, rank=2, scaling=1.0)
