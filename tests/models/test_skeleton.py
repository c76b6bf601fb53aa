"""A model without weights, against the known sizes of a published one and against a model that is really run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

from tests.models.test_load import save_adapter
from tests.tiny import save_tiny
from unlora.adapters.anchored import attach_plain_adapter
from unlora.errors import InputError
from unlora.models.formats import recorded_quantisation
from unlora.models.skeleton import footprint, load_skeleton
from unlora.models.target_modules import find_target_modules
from unlora.models.without_values import read_shapes
from unlora_research.model_map.configurations import tiny_configuration

LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
}  # fmt: skip


def skeleton_of(folder: Path, config: dict[str, Any]) -> PreTrainedModel:
    (folder / "config.json").write_text(json.dumps(config))
    return load_skeleton(str(folder), base=None, dtype=torch.bfloat16, trust_remote_code=False)


def test_llama_2_7b_from_its_config(tmp_path: Path):
    """6 738 415 616 parameters; rank 8 on all linear layers is 32 x 8 x (4 x 8192 + 3 x 15104) more."""
    model = skeleton_of(tmp_path, LLAMA_2_7B)
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_738_415_616
    targets = find_target_modules(model)
    assert len(targets) == 224
    adapted = attach_plain_adapter(model, targets, rank=8, alpha=16)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert trained == 32 * 8 * (4 * 8192 + 3 * 15104) == 19_988_480
    # 2 N a token forward and, into the activations alone, as much backward; N without embedding and head.
    found = footprint(adapted, 1, 65)
    assert found.flops == pytest.approx(4 * 65 * (6_738_415_616 - 2 * 32000 * 4096), rel=0.05)


def adapted(device: str, attention: str) -> torch.nn.Module:
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4
    )
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, attn_implementation=attention).requires_grad_(False)
    return attach_plain_adapter(model, find_target_modules(model), rank=8, alpha=16).train()


@pytest.mark.parametrize("length", [33, 257])
def test_skeleton_keeps_what_a_real_pass_keeps(length: int):
    """But for four bytes a head and position: the logarithms of sums that fused attention keeps."""
    real = footprint(adapted("cpu", "sdpa"), 4, length).activation_bytes
    assert footprint(adapted("meta", "sdpa"), 4, length).activation_bytes == real - 3 * 4 * 4 * length * 4


def test_skeleton_computes_what_a_real_pass_computes():
    """Attention written out: the kernel that fuses it on a CPU is not counted by torch."""
    assert footprint(adapted("meta", "sdpa"), 4, 33).flops == footprint(adapted("cpu", "eager"), 4, 33).flops


def test_adapter_stands_for_its_base(tmp_path: Path):
    base = save_tiny(tmp_path / "base")
    save_adapter(tmp_path / "adapter", base)
    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}
    expected = dict(load_skeleton(str(base), base=None, **options).named_parameters())
    found = dict(load_skeleton(str(tmp_path / "adapter"), base=None, **options).named_parameters())
    assert {name: one.shape for name, one in found.items()} == {name: one.shape for name, one in expected.items()}
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="base"):
        load_skeleton(str(tmp_path / "adapter"), base=None, **options)
    load_skeleton(str(tmp_path / "adapter"), base=str(tmp_path / "moved"), **options)


def test_rounding_of_the_files_is_recognised():
    for recorded, expected in (({"load_in_4bit": True}, "4bit"), ({"load_in_8bit": True}, "8bit"), (None, None)):
        options = {"quantization_config": {"quant_method": "bitsandbytes", **recorded}} if recorded else {}
        assert recorded_quantisation(PreTrainedConfig(**options)) == expected


def test_config_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot be loaded .*model type `nothing`"):
        skeleton_of(tmp_path, {"model_type": "nothing"})


@pytest.mark.parametrize("kind", ["opt", "bloom", "mamba"])
def test_classes_that_compute_with_the_mask_are_read_without_values(kind: str):
    """Their own masks have two dimensions; the operations are those of the same model with weights."""
    config: Any = tiny_configuration(kind)
    found = []
    for device in ("meta", "cpu"):
        with torch.device(device):
            model: Any = AutoModelForCausalLM.from_config(config).eval()
        model.set_experts_implementation("batched_mm")
        found.append(footprint(model, 2, 9).flops)
    assert found[0] == pytest.approx(found[1], rel=0.1)  # The kernels of attention are not the same.


def test_where_a_class_picks_tokens_all_of_them_are_picked():
    def read(inputs: dict[str, Any]) -> torch.Size:
        return torch.nonzero(inputs["input_ids"]).shape

    assert read_shapes(torch.zeros(2, 3, dtype=torch.long, device="meta"), read) == (6, 2)


def test_class_whose_code_cannot_do_without_values_is_told_in_one_line():
    def read(inputs: dict[str, Any]) -> None:
        assert bool(inputs["input_ids"].any())

    with pytest.raises(InputError, match=r"^model: cannot be read before it has values"):
        read_shapes(torch.zeros(2, 3, dtype=torch.long, device="meta"), read)
