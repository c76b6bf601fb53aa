"""The model is left as it was found, on every way out; layers that cannot be measured are refused."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from transformers import FalconConfig, FalconForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedModel

from tests.importance.reference import batch_of, completion_nll, examples, statistic_of
from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model
from unlora.errors import InputError
from unlora.importance.estimate import IMPORTANCE_PRESETS, estimate_importance
from unlora.importance.hooks import GradientTaps, measuring

BATCH = batch_of(examples())


def state_of(model: PreTrainedModel) -> dict[str, object]:
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "gradients": [name for name, parameter in model.named_parameters() if parameter.grad is not None],
        "hooks": sum(
            len(hooks)
            for module in model.modules()
            for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        ),
    }


def assert_untouched(model: PreTrainedModel, before: dict[str, object]) -> None:
    after = state_of(model)
    weights, weights_before = after.pop("weights"), before.pop("weights")
    assert isinstance(weights, dict)
    assert isinstance(weights_before, dict)
    assert all(torch.equal(weights[name], weights_before[name]) for name in weights_before)
    assert after == before
    assert after["gradients"] == []


def unevenly_set(arch: Architecture) -> PreTrainedModel:
    """A model whose parts differ in mode and in what is trainable."""
    model = build_tiny_model(arch)
    model.train()
    for index, module in enumerate(model.modules()):
        module.training = index % 3 == 0
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 2 == 0)
    return model


@pytest.mark.parametrize("preset", IMPORTANCE_PRESETS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_model_is_untouched(arch: Architecture, preset: str):
    model = unevenly_set(arch)
    before = state_of(model)
    estimate_importance(model, [BATCH, BATCH], [BATCH], preset=preset)
    assert_untouched(model, before)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_model_is_untouched_with_gradient_checkpointing(use_reentrant: bool):
    model = unevenly_set("llama")
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    before = state_of(model)
    estimate_importance(model, [BATCH], None, preset="marginal")
    assert_untouched(model, before)


def test_model_is_untouched_after_an_error_between_batches():
    def failing() -> Iterator[dict[str, Tensor]]:
        yield BATCH
        raise KeyboardInterrupt

    model = unevenly_set("gpt2")
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt):
        estimate_importance(model, failing(), None, preset="vila")
    assert_untouched(model, before)


def test_model_is_untouched_after_an_error_in_the_backward_pass():
    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor: Tensor) -> Tensor:
            return tensor.view_as(tensor)

        @staticmethod
        def backward(ctx, *gradients: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

    model = unevenly_set("llama")
    handle = model.get_submodule("model.layers.0.mlp").register_forward_hook(
        lambda _module, _inputs, output: Failing.apply(output)
    )
    before = state_of(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        estimate_importance(model, [BATCH], None, preset="vila")
    assert_untouched(model, before)
    handle.remove()


def sharing_a_layer() -> PreTrainedModel:
    model = build_tiny_model("llama")
    block = model.get_submodule("model.layers.1.self_attn")
    block.o_proj = model.get_submodule("model.layers.0.self_attn.o_proj")  # type: ignore[assignment]
    return model


@pytest.mark.parametrize("checkpointed", [False, True])
def test_module_used_twice_in_one_forward_pass_has_the_gradient_of_both_uses(checkpointed: bool):
    model, name = sharing_a_layer(), "model.layers.0.self_attn.o_proj"
    weight, chosen = model.get_parameter(f"{name}.weight"), examples()
    gradients = [torch.autograd.grad(completion_nll(model, *example), weight)[0] for example in chosen]
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    before = state_of(model)
    measured = estimate_importance(model, [BATCH], None, preset="marginal")
    assert_untouched(model, before)
    variance = statistic_of(torch.stack(gradients), "variance")
    torch.testing.assert_close(vars(measured[name].forget)["rows"], variance.sum(dim=1), rtol=1e-4, atol=1e-9)


def test_module_used_twice_is_refused_where_a_forward_pass_has_no_gradients():
    model = sharing_a_layer()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    before = state_of(model)
    with pytest.raises(InputError, match=r"'model.layers.0.self_attn.o_proj' is used more than once"):
        estimate_importance(model, [BATCH], None, preset="marginal")
    assert_untouched(model, before)


def test_module_without_part_in_the_loss_is_left_out_and_refused_when_named():
    model = build_tiny_model("llama")
    plain = estimate_importance(model, [BATCH], None, preset="marginal")
    model.get_submodule("model.layers.0.mlp").add_module("spare", nn.Linear(8, 8))
    assert list(estimate_importance(model, [BATCH], None, preset="marginal")) == list(plain)
    with pytest.raises(
        InputError, match=r"'model.layers.0.mlp.spare' took no part in the loss; leave it out \(adapter.ex"
    ):
        estimate_importance(model, [BATCH], None, preset="marginal", target_modules=["spare"])


def taps_on(module: nn.Module) -> tuple[GradientTaps, list[tuple[Tensor, Tensor]]]:
    seen: list[tuple[Tensor, Tensor]] = []
    return GradientTaps({"layer": module}, lambda _name, inputs, gradients: seen.append((inputs, gradients))), seen


@pytest.mark.parametrize("flat", [False, True])
def test_input_and_output_gradient_come_by_example(flat: bool):
    layer, inputs = nn.Linear(3, 5), torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1))
    taps, seen = taps_on(layer)
    with taps.attached():
        taps.start_batch(2, 4)
        output = layer(inputs.flatten(0, 1) if flat else inputs)
        (output.view(2, 4, 5) * weights).sum().backward()
        taps.finish_batch()
    assert len(seen) == 1
    assert torch.equal(seen[0][0], inputs)
    assert torch.equal(seen[0][1], weights)
    assert not layer._forward_hooks


def test_layer_that_mixes_examples_is_refused():
    layer = nn.Linear(3, 5)
    taps, _ = taps_on(layer)
    with taps.attached():
        taps.start_batch(2, 4)
        with pytest.raises(InputError, match="the 2 examples of 4 tokens do not lie one after another"):
            layer(torch.ones(6, 3)).sum().backward()


def falcon() -> PreTrainedModel:
    return FalconForCausalLM(
        FalconConfig(
            vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, hidden_dropout=0.5, alibi=False
        )
    )


def opt() -> PreTrainedModel:
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64,
            word_embed_proj_dim=32, dropout=0.5, layerdrop=0.5,
        )
    )  # fmt: skip


@pytest.mark.parametrize("build", [falcon, opt])
def test_checkpointing_does_not_switch_on_dropout_that_a_block_applies_itself(build):
    batch = {"input_ids": BATCH["input_ids"], "attention_mask": BATCH["attention_mask"], "use_cache": False}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("ignore")  # Some models announce a mask that they will give up.
        model = build().train()
        model.gradient_checkpointing_enable({"use_reentrant": False})

        def different_outputs() -> int:
            return len({float(model(**batch).logits.sum()) for _ in range(8)})

        assert different_outputs() > 1
        with measuring(model):
            assert different_outputs() == 1
