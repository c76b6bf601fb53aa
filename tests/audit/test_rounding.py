"""Merged and rounded weights against plain arithmetic."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.adapters.test_export import trained
from tests.tiny import Architecture, build_tiny_model, build_tiny_tokenizer
from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.audit.rounding import rounded, save_merged
from unlora.errors import UnloraError
from unlora.models.fingerprint import fingerprint
from unlora.models.quantised import misread_layer
from unlora.models.wrapping import unwrap

CPU = torch.device("cpu")


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma3"])
def test_merged_folder_holds_w_plus_s_b_a_and_the_model_is_untouched(arch: Architecture, tmp_path: Path):
    """Adapter of rank 8 and alpha 32: s = 4. GPT-2 stores W transposed, GPT-2 and Gemma tie the head."""
    model = trained(arch)
    before = weights_of(model), fingerprint(model)
    expected = weights_of(build_tiny_model(arch))
    for name, layer in lora_layers(model):
        lora_a, lora_b = factor_parameters(layer)
        update = 4 * lora_b.detach() @ lora_a.detach()
        expected[f"{name}.weight"] += update.T if arch == "gpt2" else update

    save_merged(model, build_tiny_tokenizer(), tmp_path / "merged")

    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=0, msg=name)
    assert fingerprint(model) == before[1]
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in model.state_dict().items())


def test_adapter_that_is_switched_off_is_merged_too(tmp_path: Path):
    model = trained("llama")
    save_merged(model, build_tiny_tokenizer(), tmp_path / "on")
    with model.disable_adapter():
        save_merged(model, build_tiny_tokenizer(), tmp_path / "off")
    on, off = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("on", "off"))
    assert fingerprint(on) == fingerprint(off) != fingerprint(model)


def test_plain_model_is_saved_as_it_is(tmp_path: Path):
    model = build_tiny_model("llama").bfloat16()
    save_merged(model, build_tiny_tokenizer(), tmp_path / "plain")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert found.dtype == torch.bfloat16
    assert fingerprint(found) == fingerprint(model)


def wide_model() -> PreTrainedModel:
    """Rows of whole blocks, as models for use have them."""
    return build_tiny_model("llama", hidden=64)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_merged(wide_model(), build_tiny_tokenizer(), tmp_path / "model")
    return tmp_path / "model"


def test_int8_is_rounding_of_rows(saved: Path, capfd: pytest.CaptureFixture[str]):
    """LLM.int8: every row of W in steps of its largest entry / 127. Nothing is said about it."""
    pytest.importorskip("bitsandbytes")
    plain = wide_model().get_parameter("model.layers.0.mlp.up_proj.weight").detach()
    step = plain.abs().amax(dim=1, keepdim=True) / 127
    with rounded(saved, "int8", device=CPU, dtype=torch.float32) as model:
        layer = model.get_submodule("model.layers.0.mlp.up_proj")
        codes = layer.weight.data.float()  # pyright: ignore[reportAttributeAccessIssue]
        tokens = torch.arange(12)[None]
        logits = model(input_ids=tokens).logits
        assert unwrap(model).get_output_embeddings().weight.dtype == torch.float32  # pyright: ignore
    assert (codes - plain / step).abs().max() <= 0.57  # weights pass through float16 before they are rounded
    exact = wide_model()(input_ids=tokens).logits
    assert 0 < (logits - exact).abs().max() < 0.25 * exact.std()
    assert capfd.readouterr().err == ""


def test_nf4_has_sixteen_levels_in_a_block(saved: Path, capfd: pytest.CaptureFixture[str]):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    plain = wide_model().get_parameter("model.layers.0.mlp.up_proj.weight").detach()
    with rounded(saved, "nf4", device=CPU, dtype=torch.float32) as model:
        weight = model.get_submodule("model.layers.0.mlp.up_proj").weight
        found = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)  # pyright: ignore
        x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(model.get_submodule("model.layers.0.mlp.up_proj")(x), x @ found.T)  # not in bfloat16
    blocks = found.reshape(-1, 64)
    assert all(len(block.unique()) <= 16 for block in blocks)
    torch.testing.assert_close(blocks.abs().amax(dim=1), plain.reshape(-1, 64).abs().amax(dim=1))
    # The widest gap between two levels is 0.304 of a block's largest entry; rounding errs by half of it at most.
    bound = 0.153 * plain.reshape(-1, 64).abs().amax(dim=1, keepdim=True)
    error = (found - plain).reshape(-1, 64).abs()
    assert (error <= bound).all()
    assert error.max() > 0
    assert capfd.readouterr().err == ""


def test_layer_that_nf4_would_misread_on_a_cpu_is_named():
    """Rows of 32 weights: half a block."""
    assert misread_layer(build_tiny_model("llama")) == "model.layers.0.self_attn.q_proj has 32"
    assert misread_layer(wide_model()) is None


def test_rounded_model_is_freed(saved: Path):
    pytest.importorskip("bitsandbytes")
    with rounded(saved, "int8", device=CPU, dtype=torch.float32) as model:
        alive = weakref.ref(model)
        del model
    gc.collect()
    assert alive() is None


def test_folder_that_cannot_be_read_is_one_line(tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    with pytest.raises(UnloraError, match="nf4: "), rounded(tmp_path, "nf4", device=CPU, dtype=torch.float32):
        pass
