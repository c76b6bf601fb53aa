"""A plain adapter on a bfloat16 model multiplies in bfloat16, learns in float32, and nothing else is touched."""

from collections.abc import Callable

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from tests.tiny import build_tiny_model
from unlora.adapters import attach_factors, attach_plain_adapter
from unlora.adapters.anchored import lora_layers
from unlora.adapters.initial import InitialFactors
from unlora.adapters.products import bfloat16_products
from unlora.models.target_modules import find_target_modules

IDS = torch.arange(1, 25).reshape(2, 12)


def adapted(*, anchored: bool = False, dtype: torch.dtype = torch.bfloat16) -> PeftModel:
    model = build_tiny_model("llama")
    model.to(dtype=dtype)
    targets = find_target_modules(model, ["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"])
    torch.manual_seed(0)
    if not anchored:
        peft_model = attach_plain_adapter(model, targets, rank=4, alpha=4)
        for _, layer in lora_layers(peft_model):
            nn.init.normal_(layer.lora_B["default"].get_parameter("weight"), std=0.2)
        return peft_model
    starts = {
        name: InitialFactors(torch.randn(target.d_out, 4), torch.randn(4, target.d_in), None, "drawn", None)
        for name, target in targets.items()
    }
    return attach_factors(model, starts, rank=4, alpha=4)


def gradients(model: PeftModel) -> dict[str, Tensor]:
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def watched(model: PeftModel, look: Callable[[Tensor], None]) -> None:
    for _, layer in lora_layers(model):
        layer.lora_A["default"].register_forward_hook(lambda _module, _inputs, output: look(output))  # type: ignore[operator]


def test_products_are_bfloat16_and_gradients_float32_and_nearly_the_same():
    model, formats = adapted(), set()
    exact = gradients(model)
    watched(model, lambda output: formats.add(output.dtype))
    with bfloat16_products(model):
        rounded = gradients(model)
    assert formats == {torch.bfloat16}
    assert exact.keys() == rounded.keys()
    for name, expected in exact.items():
        assert rounded[name].dtype == torch.float32
        assert float((rounded[name] - expected).norm() / expected.norm()) < 0.03, name
    gradients(model)
    assert formats == {torch.bfloat16, torch.float32}  # as before, afterwards


@pytest.mark.parametrize(("anchored", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_anchored_adapters_and_float32_models_keep_every_bit(*, anchored: bool, dtype: torch.dtype):
    model = adapted(anchored=anchored, dtype=dtype)
    exact = gradients(model)
    with bfloat16_products(model):
        assert all(torch.equal(found, exact[name]) for name, found in gradients(model).items())


def test_casting_ends_with_the_layer_even_when_it_fails():
    model = adapted()
    inside = []
    model.get_submodule("base_model.model.lm_head").register_forward_pre_hook(
        lambda _module, _inputs: inside.append(torch.is_autocast_enabled("cpu"))
    )

    def fail(_output: Tensor) -> None:
        raise RuntimeError("in the middle")

    with bfloat16_products(model):
        model(input_ids=IDS)
        watched(model, fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            model(input_ids=IDS)
        assert not torch.is_autocast_enabled("cpu")
    assert inside == [False]
