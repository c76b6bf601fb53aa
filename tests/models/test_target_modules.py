"""Target modules: their names, their weights, and what PEFT makes of them."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model
from unlora.errors import InputError
from unlora.models.target_modules import find_target_modules, peft_target_modules
from unlora.models.wrapping import canonical_name

ATTENTION = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
GATED_MLP = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
LAYERS: dict[Architecture, list[str]] = {
    "llama": ATTENTION + GATED_MLP,
    "mistral": ATTENTION + GATED_MLP,
    "qwen2": ATTENTION + GATED_MLP,
    "gemma3": ATTENTION + GATED_MLP,
    "phi": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense", "mlp.fc1", "mlp.fc2"],
    "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
}


def expected_names(arch: Architecture) -> list[str]:
    prefix = "transformer.h" if arch == "gpt2" else "model.layers"
    return [f"{prefix}.{layer}.{name}" for layer in range(2) for name in LAYERS[arch]]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_default_is_every_linear_layer_but_the_head(arch: Architecture):
    assert sorted(find_target_modules(build_tiny_model(arch))) == sorted(expected_names(arch))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_wrapped_model_has_the_same_names_and_layers(arch: Architecture):
    model = build_tiny_model(arch)
    plain = find_target_modules(model)
    wrapped = get_peft_model(model, LoraConfig(target_modules=list(plain), fan_in_fan_out=arch == "gpt2"))
    found = find_target_modules(wrapped)
    assert list(found) == list(plain)
    assert all(found[name].module is plain[name].module for name in plain)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_weight_is_the_matrix_the_layer_multiplies_with(arch: Architecture):
    for target in find_target_modules(build_tiny_model(arch)).values():
        inputs = torch.randn(5, target.d_in)
        weight = target.weight()
        assert weight.shape == (target.d_out, target.d_in)
        bias = dict(target.module.named_parameters()).get("bias", torch.zeros(target.d_out))
        torch.testing.assert_close(target.module(inputs), inputs @ weight.T + bias)


def test_weight_of_a_bfloat16_layer_is_float32():
    target = find_target_modules(build_tiny_model("llama").bfloat16())["model.layers.0.mlp.up_proj"]
    assert target.weight().dtype == torch.float32


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["model.layers.1.mlp.up_proj"], ["model.layers.1.mlp.up_proj"]),
        (["q_proj"], ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        (["self_attn.o_proj"], ["model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj"]),
        (["model.layers.1*.mlp.*"], [f"model.layers.1.{name}" for name in GATED_MLP]),
        (["0.mlp.down_proj", "0.self_attn.[qk]_proj"], None),
    ],
)
def test_patterns_choose_in_model_order(patterns: list[str], expected: list[str] | None):
    if expected is None:
        expected = [f"model.layers.0.{name}" for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj")]
    assert list(find_target_modules(build_tiny_model("llama"), patterns)) == expected


@pytest.mark.parametrize(
    ("patterns", "advice"),
    [
        (["q_porj"], "Did you mean 'q_proj'"),
        (["q_proj", "proj"], "'proj': matches no linear layer"),
        (["lm_head"], "The model has down_proj"),
        ([], "is empty"),
    ],
)
def test_pattern_without_match_is_refused_with_advice(patterns: list[str], advice: str):
    with pytest.raises(InputError, match=advice):
        find_target_modules(build_tiny_model("llama"), patterns)


def test_model_without_linear_layers_is_refused():
    with pytest.raises(InputError, match="no linear layer"):
        find_target_modules(build_tiny_model("llama", layers=0))


@pytest.mark.parametrize(
    ("arch", "patterns", "length"),
    [
        ("llama", None, 7),
        ("llama", ["model.layers.1.*", "0.self_attn.q_proj"], 7),
        ("gpt2", None, 3),
        ("gpt2", ["mlp.c_proj", "c_fc"], 3),
        ("phi", ["dense", "fc1"], 2),
    ],
)
def test_peft_takes_exactly_the_modules_asked_for(arch: Architecture, patterns: list[str] | None, length: int):
    model = build_tiny_model(arch)
    names = list(find_target_modules(model, patterns))
    entries = peft_target_modules(model, names)
    wrapped = get_peft_model(model, LoraConfig(target_modules=entries, fan_in_fan_out=arch == "gpt2"))
    adapted = [name.removesuffix(".base_layer") for name, _ in model.named_modules() if name.endswith(".base_layer")]
    assert sorted(adapted) == sorted(names)
    assert len(entries) == length
    assert peft_target_modules(wrapped, names) == entries


def test_canonical_name_drops_what_peft_adds():
    assert canonical_name("model.layers.0.mlp.up_proj.base_layer.weight") == "model.layers.0.mlp.up_proj.weight"
    assert canonical_name("model.layers.0.mlp.up_proj.lora_A.default") is None
