"""Weights in the format of another library: multiplied out right, or one line that names it."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests.tiny import build_tiny_model, build_tiny_tokenizer, save_tiny
from unlora.errors import InputError
from unlora.models.dequantise import full_weight
from unlora.models.load import LoadedModel, load_model
from unlora.models.merge import probe_tokens
from unlora.models.save import save_model
from unlora.models.skeleton import load_skeleton

CPU = torch.device("cpu")


def loaded(folder: Path, **options: Any) -> LoadedModel:
    return load_model(str(folder), device=CPU, **options)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    # In the other mode 4-bit layers round their input on some processors (findings/bitsandbytes-4bit-eval.sh).
    return model.train()(input_ids=torch.arange(3, 27).reshape(2, 12)).logits.float()


def save_wide(folder: Path) -> Path:
    """A model whose rows are whole blocks of 64 weights."""
    tokenizer = build_tiny_tokenizer()
    build_tiny_model("llama", vocab_size=len(tokenizer), hidden=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_rounded(folder: Path, bits: str, compute: torch.dtype) -> Path:
    options: dict[str, Any] = {"load_in_8bit": True} if bits == "8bit" else {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": compute,
        "bnb_4bit_use_double_quant": True,
    }  # fmt: skip
    wide = save_wide(folder.with_name("wide"))
    AutoModelForCausalLM.from_pretrained(
        wide, quantization_config=BitsAndBytesConfig(**options), device_map={"": "cpu"}
    ).save_pretrained(folder)
    build_tiny_tokenizer().save_pretrained(folder)
    return folder


def plain_peft(base: Path, adapter: Path) -> PeftModel:
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, device_map={"": "cpu"}), str(adapter))


@pytest.mark.filterwarnings("ignore")  # bitsandbytes speaks of casts, PEFT of tied heads
@pytest.mark.parametrize(
    ("bits", "compute", "allowed"),
    [("4bit", torch.float32, 1e-5), ("4bit", torch.bfloat16, 0.03), ("8bit", torch.float16, 0.05)],
)
def test_target_on_a_rounded_base_is_what_peft_computes(
    bits: str, compute: torch.dtype, allowed: float, tmp_path: Path
):
    """The oracle is plain PEFT on the rounded base, whose layers compute in `compute`, and in 8 bits round what they
    are given as well. A merge into the codes, as PEFT does it, is off by more.
    """
    pytest.importorskip("bitsandbytes")
    base = save_rounded(tmp_path / "base-bnb", bits, compute)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, device_map={"": "cpu"}), LoraConfig(target_modules="all-linear", r=4)
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.03)
    model.save_pretrained(str(tmp_path / "adapter"))
    expected, without = logits(plain_peft(base, tmp_path / "adapter")), logits(loaded(base).model)
    assert (expected - without).norm() > 0.1 * without.norm()

    target = loaded(tmp_path / "adapter", base=str(base))
    difference = (logits(target.model) - expected).norm() / expected.norm()
    rounded_again = logits(plain_peft(base, tmp_path / "adapter").merge_and_unload())
    assert difference < allowed
    assert difference < 0.8 * (rounded_again - expected).norm() / expected.norm()
    assert (target.source.quantisation, target.source.multiplied_out) == (None, bits)
    assert bits in target.notes[-1]
    save_model(target.model, target.tokenizer, tmp_path / "saved")
    torch.testing.assert_close(logits(loaded(tmp_path / "saved").model), logits(target.model))


@pytest.mark.filterwarnings("ignore")
def test_rounded_base_is_multiplied_out_to_what_its_layers_multiply_with(tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    base = save_rounded(tmp_path / "base", "4bit", torch.float32)
    get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, device_map={"": "cpu"}), LoraConfig(target_modules=["q_proj"])
    ).save_pretrained(str(tmp_path / "adapter"))
    codes = dict(loaded(base).model.named_modules())
    found = loaded(tmp_path / "adapter", base=str(base)).model  # B is 0: the base itself
    for name, module in found.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            assert type(module) is torch.nn.Linear
            torch.testing.assert_close(module.weight.float(), full_weight(codes[name]))


@pytest.mark.filterwarnings("ignore")
def test_config_that_says_4_bits_of_full_weights_is_refused(tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    rounded = save_rounded(tmp_path / "base", "4bit", torch.float32)
    wide = tmp_path / "wide"
    config = json.loads((rounded / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"quantization_config|full precision|4 bits"):
        loaded(wide)


def save_fp8(folder: Path) -> dict[str, torch.Tensor]:
    """Write linear layers as float8 with a scale for every block of 32 by 32; return what they stand for."""
    save_tiny(folder)
    tensors = load_file(folder / "model.safetensors")
    stand_for = {}
    for name in [name for name in tensors if "_proj" in name]:
        blocks = tensors[name].reshape(tensors[name].shape[0] // 16, 16, -1, 16)
        scale = blocks.abs().amax(dim=(1, 3)) / 448
        codes = (blocks / scale[:, None, :, None]).reshape(tensors[name].shape).to(torch.float8_e4m3fn)
        stand_for[name] = (codes.float().reshape(blocks.shape) * scale[:, None, :, None]).reshape(codes.shape)
        tensors[name], tensors[name + "_scale_inv"] = codes, scale
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16], "fmt": "e4m3",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return stand_for


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float8_is_multiplied_out_into_the_number_format_asked_for(dtype: torch.dtype, tmp_path: Path):
    stand_for = save_fp8(tmp_path / "fp8")
    result = loaded(tmp_path / "fp8", dtype=dtype)
    assert {parameter.dtype for parameter in result.model.parameters()} == {dtype}
    for name, weight in stand_for.items():
        torch.testing.assert_close(result.model.get_parameter(name).float(), weight, rtol=2**-7, atol=0)
    assert result.source.multiplied_out == "fp8"
    assert "fp8" in result.notes[0]
    assert logits(result.model).isfinite().all()
    save_model(result.model, result.tokenizer, tmp_path / "saved")
    torch.testing.assert_close(logits(loaded(tmp_path / "saved", dtype=dtype).model), logits(result.model))


@pytest.mark.parametrize(
    "recorded",
    [
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq", "bits": 4},
        pytest.param(
            {"quant_method": "compressed-tensors"},
            marks=pytest.mark.skipif(find_spec("compressed_tensors") is not None, reason="it is installed"),
        ),
        pytest.param(
            {"quant_method": "torchao", "quant_type": {"default": "int8"}},
            marks=pytest.mark.skipif(find_spec("torchao") is not None, reason="it is installed"),
        ),
        {"quant_method": "of another planet"},
        {"bits": 4},
        ["gptq"],
        "gptq",
    ],
)
def test_format_of_another_library_is_named_in_run_and_plan(recorded: Any, tmp_path: Path):
    folder = save_tiny(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": recorded}))
    for load in (
        lambda: loaded(folder),
        lambda: load_skeleton(str(folder), base=None, dtype=torch.float32, trust_remote_code=False),
    ):
        with pytest.raises(InputError, match=r"format|cannot be loaded") as caught:
            load()
        assert "\n" not in str(caught.value)


def test_probe_fits_any_vocabulary():
    assert probe_tokens(build_tiny_model("llama", vocab_size=7)).unique().tolist() == list(range(7))
