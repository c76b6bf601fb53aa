"""The anchored adapter: the model does not move, the base is not written, the anchor does not learn."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.taught import Taught
from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model
from tests.training.runs import adapter_tensors, anchored, logits, pairs, train
from unlora.adapters import attach_plain_adapter, check_output_unmoved
from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.errors import FunctionMovedError, InputError
from unlora.importance import estimate_importance
from unlora.models.fingerprint import fingerprint
from unlora.models.target_modules import find_target_modules
from unlora.models.wrapping import unwrap
from unlora.starts.attach import attach_anchored_adapter


def token_batch(rows: int = 6, length: int = 20) -> dict[str, Tensor]:
    """Random tokens, rows of different lengths, the second half of each scored."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(2, 128, (rows, length), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    for row in range(rows):
        attention_mask[row, length - row :] = 0
    labels = input_ids.masked_fill(attention_mask == 0, -100)
    labels[:, : length // 2] = -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_logits_at_step_0_are_the_targets(arch: Architecture):
    model, batch = build_tiny_model(arch), token_batch()
    target = logits(model, batch)
    adapted = attach_anchored_adapter(model, rank=8)
    assert float((logits(adapted, batch) - target).abs().max()) <= 1e-5
    shift = check_output_unmoved(adapted, batch)
    assert shift.largest_difference <= 1e-5
    assert shift.tolerance == 1e-4
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted, batch), target)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_bfloat16_logits_at_step_0_move_no_more_than_between_batch_shapes(arch: Architecture):
    model, batch = build_tiny_model(arch).bfloat16(), token_batch()
    target = logits(model, batch)
    alone = torch.cat([logits(model, {key: value[[row]] for key, value in batch.items()}) for row in range(6)])
    real = batch["attention_mask"].bool()
    noise = float((alone - target)[real].abs().max())
    adapted = attach_anchored_adapter(model, rank=8)
    assert float((logits(adapted, batch) - target)[real].abs().max()) <= noise
    assert check_output_unmoved(adapted, batch).tolerance >= 1e-4
    assert {value.dtype for value in adapter_tensors(adapted).values()} == {torch.float32}


def test_start_is_the_weighted_solution_and_twice_the_rank():
    """W's best rank-4 approximation, so that s (B A - B A) is what cancels, not something small."""
    model = build_tiny_model("llama")
    name = "model.layers.1.mlp.up_proj"
    weight = find_target_modules(model)[name].weight()
    layer = dict(lora_layers(attach_anchored_adapter(model, rank=4, alpha=8)))[name]
    lora_a, lora_b = factor_parameters(layer)
    u, values, v = torch.linalg.svd(weight)
    best = u[:, :4] * values[:4] @ v[:4]
    assert layer.scaling["default"] == 2.0
    assert lora_a.shape[0] == 8
    torch.testing.assert_close(2.0 * lora_b[:, :4] @ lora_a[:4], best, atol=1e-4, rtol=0)
    assert torch.equal(lora_a[:4], lora_a[4:])
    assert torch.equal(lora_b[:, :4], -lora_b[:, 4:])


def test_importance_weights_the_start_and_chooses_the_modules():
    model, batch = build_tiny_model("llama"), token_batch()
    patterns = ["model.layers.1.*"]
    importance = estimate_importance(model, [batch], [token_batch(4, 16)], preset="marginal", target_modules=patterns)
    weighted = attach_anchored_adapter(model, importance, rank=2)
    names = [name for name, _ in lora_layers(weighted)]
    assert names == list(importance)
    assert all(name.startswith("model.layers.1.") for name in names)
    uniform = attach_anchored_adapter(build_tiny_model("llama"), rank=2)
    starts = [dict(lora_layers(one))[names[0]] for one in (weighted, uniform)]
    assert not torch.allclose(factor_parameters(starts[0])[0], factor_parameters(starts[1])[0], atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"max_grad_norm": 0.05}, {"gradient_accumulation_steps": 2, "batch_size": 2}, {"learning_rate": 0.1}],
    ids=["clipping", "accumulation", "large steps"],
)
def test_training_moves_the_first_half_only(taught: Taught, tmp_path: Path, options: dict):
    model = anchored(taught)
    before, base = adapter_tensors(model), fingerprint(model)
    with model.disable_adapter():
        target = logits(model, taught.batch())
    train(model, pairs(taught, epochs=3), tmp_path, **options)
    for name, value in adapter_tensors(model).items():
        dim = 0 if "lora_A" in name else 1
        trained, anchor = value.chunk(2, dim)
        assert torch.equal(anchor, before[name].chunk(2, dim)[1]), name
        assert not torch.equal(trained, before[name].chunk(2, dim)[0]), name
    assert fingerprint(model) == base == fingerprint(taught.load().model)
    with model.disable_adapter():
        assert torch.equal(logits(model, taught.batch()), target)
    assert torch.equal(logits(taught.load().model, taught.batch()), target)


def test_only_factors_ask_for_a_gradient_also_after_switching_off_and_on(taught: Taught):
    model = anchored(taught)
    with model.disable_adapter():
        pass
    assert all(value.requires_grad == ("lora_" in name) for name, value in model.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_broken_anchor_is_noticed(dtype: torch.dtype):
    plain = build_tiny_model("llama")
    model = attach_anchored_adapter(plain.bfloat16() if dtype == torch.bfloat16 else plain, rank=4)
    _, layer = next(lora_layers(model))
    with torch.no_grad():
        factor_parameters(layer)[1][:, 4:] *= 0.5
    with pytest.raises(FunctionMovedError, match=r"moved a logit by .* before any training step \(allowed"):
        check_output_unmoved(model, token_batch())


def test_undefined_logits_count_as_moved():
    model = attach_anchored_adapter(build_tiny_model("llama"), rank=4)
    _, layer = next(lora_layers(model))
    with torch.no_grad():
        factor_parameters(layer)[1][0, 0] = torch.nan
    with pytest.raises(FunctionMovedError):
        check_output_unmoved(model, token_batch())


def test_check_leaves_the_mode_of_the_model_alone():
    model = attach_anchored_adapter(build_tiny_model("llama"), rank=4)
    for training in (True, False):
        model.train(training)
        check_output_unmoved(model, token_batch())
        assert model.training is training


@pytest.mark.parametrize("rank", [33, 64])
def test_rank_larger_than_every_layer_is_refused(rank: int):
    model = build_tiny_model("llama")
    with pytest.raises(InputError, match=rf"adapter.rank: {rank} does not fit target module 'model.layers.0.self_attn"):
        attach_anchored_adapter(model, rank=rank)
    with pytest.raises(InputError, match=r"adapter\.rank"):
        attach_plain_adapter(model, find_target_modules(model), rank=rank, alpha=8.0)


def test_largest_rank_is_accepted():
    model = attach_anchored_adapter(build_tiny_model("llama"), rank=16)
    assert check_output_unmoved(model, token_batch()).largest_difference <= 1e-4


def test_model_with_an_adapter_is_refused_also_without_its_wrapper(taught: Taught):
    model = anchored(taught)
    for carrier in (model, unwrap(model)):
        with pytest.raises(InputError, match="already carries an adapter; merge it first"):
            attach_anchored_adapter(carrier, rank=2)
        with pytest.raises(InputError, match="already carries an adapter"):
            attach_plain_adapter(carrier, find_target_modules(carrier), rank=2, alpha=4.0)


def test_importance_of_other_modules_is_refused():
    importance = estimate_importance(build_tiny_model("gpt2"), [token_batch()], [token_batch(4, 16)], preset="marginal")
    with pytest.raises(InputError, match="matches no linear layer"):
        attach_anchored_adapter(build_tiny_model("llama"), importance, rank=2)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_plain_adapter_starts_at_the_target_too(arch: Architecture):
    model, batch = build_tiny_model(arch), token_batch()
    target = logits(model, batch)
    adapted = attach_plain_adapter(model, find_target_modules(model, ["*.0.*"]), rank=4, alpha=8)
    assert torch.equal(logits(adapted, batch), target)
    assert all(".0." in name for name, _ in lora_layers(adapted))
