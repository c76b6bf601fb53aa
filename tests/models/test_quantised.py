"""What cannot be had of bitsandbytes is said in one line, before any work."""

from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, BitsAndBytesConfig

from tests.tiny import build_tiny_model, save_tiny
from unlora.errors import InputError
from unlora.models import quantised
from unlora.models.inventory import linear_share, rounded_share
from unlora.models.load import load_model
from unlora.models.quantised import misread_layer, quantisation_of
from unlora.models.target_modules import find_target_modules

CPU = torch.device("cpu")


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quantised, "has_bitsandbytes", lambda: False)
    with pytest.raises(InputError, match=r'4bit needs bitsandbytes: pip install "unlora\[quantisation\]"'):
        load_model(str(save_tiny(tmp_path / "model")), device=CPU, quantisation="4bit")


def test_model_of_half_blocks_is_refused_in_4_bits_on_a_cpu(tmp_path: Path):
    """Rows of 32 weights."""
    pytest.importorskip("bitsandbytes")
    folder = str(save_tiny(tmp_path / "model"))
    with pytest.raises(InputError, match="q_proj has 32"):
        load_model(folder, device=CPU, quantisation="4bit")
    assert load_model(folder, device=CPU, quantisation="8bit").source.quantisation == "8bit"


def test_conv1d_is_rounded_and_turned(tmp_path: Path):
    """GPT-2 stores (d_in, d_out); bitsandbytes' layer, the other way round."""
    pytest.importorskip("bitsandbytes")
    folder = save_tiny(tmp_path / "model", "gpt2")
    plain = find_target_modules(load_model(str(folder), device=CPU).model)
    rounded = find_target_modules(load_model(str(folder), device=CPU, quantisation="8bit").model)
    for name, target in rounded.items():
        assert (target.d_out, target.d_in) == (plain[name].d_out, plain[name].d_in)
        weight = plain[name].weight()
        step = weight.abs().amax(dim=1, keepdim=True) / 127
        assert ((target.weight() - weight).abs() <= 0.57 * step).all()  # they pass through float16 first


@pytest.mark.parametrize(("kind", "low", "high"), [("mixtral", 0.05, 0.3), ("llama", 1.0, 1.0)])
def test_share_in_linear_layers_is_what_bitsandbytes_rounds(kind: str, low: float, high: float, tmp_path: Path):
    """Experts in fused tensors are passed over (findings/bitsandbytes-fused-experts.sh)."""
    pytest.importorskip("bitsandbytes")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    plain = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](vocab_size=64, num_key_value_heads=2, **sizes))
    plain.save_pretrained(tmp_path)
    rounded = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(load_in_8bit=True), dtype=torch.float32
    )
    kept = {name: weight for name, weight in rounded.named_parameters() if ".layers." in name and weight.ndim > 1}
    in_8_bits = sum(weight.numel() for weight in kept.values() if weight.dtype == torch.int8)
    assert linear_share(plain) == linear_share(rounded) == in_8_bits / sum(weight.numel() for weight in kept.values())
    assert low <= linear_share(plain) <= high


@pytest.mark.parametrize(("kind", "said"), [("mixtral", "11 % of the weights"), ("llama", "100 % of the weights")])
def test_share_that_was_rounded_is_said_and_recorded(kind: str, said: str, tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CONFIG_MAPPING[kind](vocab_size=128, num_key_value_heads=2, **sizes)
    if kind == "mixtral":
        config.num_local_experts = 4
    save_tiny(tmp_path)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), device=CPU, quantisation="8bit")
    held = {name: weight for name, weight in loaded.model.named_parameters() if ".layers." in name and weight.ndim > 1}
    in_8_bits = sum(weight.numel() for weight in held.values() if weight.dtype == torch.int8)
    assert (
        loaded.rounded_share
        == loaded.checks["rounded_share"]
        == in_8_bits / sum(weight.numel() for weight in held.values())
    )
    assert [said in note for note in loaded.notes] == [True]
    assert ("stay as they are" in loaded.notes[0]) == (kind == "mixtral")
    assert load_model(str(tmp_path), device=CPU).checks == {}


def test_layer_that_the_files_leave_out_is_not_counted(tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    plain = save_tiny(tmp_path / "plain")
    skipping = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head", "down_proj"])
    model = AutoModelForCausalLM.from_pretrained(plain, quantization_config=skipping, dtype=torch.float32)
    layers = find_target_modules(model)
    left = sum(layer.d_out * layer.d_in for name, layer in layers.items() if name.endswith("down_proj"))
    assert left > 0
    assert rounded_share(model) == 1 - left / sum(layer.d_out * layer.d_in for layer in layers.values())


def test_plain_model_is_neither():
    model = build_tiny_model("llama")
    assert quantisation_of(model) is None
    assert misread_layer(build_tiny_model("llama", hidden=64)) is None
