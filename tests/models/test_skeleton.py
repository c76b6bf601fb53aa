"""A model without weights, against the known sizes of a published one and against a model that is really run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from unlora.adapters.anchored import attach_plain_adapter
from unlora.errors import InputError
from unlora.models.skeleton import footprint, load_skeleton
from unlora.models.target_modules import find_target_modules

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
    found = footprint(adapted, 1, 64)
    assert found.flops == pytest.approx(4 * 64 * (6_738_415_616 - 2 * 32000 * 4096), rel=0.05)


def test_skeleton_counts_what_a_real_pass_keeps_and_computes():
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4
    )

    def adapted(device: str) -> torch.nn.Module:
        with torch.device(device):
            model = LlamaForCausalLM(config).requires_grad_(False)
        return attach_plain_adapter(model, find_target_modules(model), rank=8, alpha=16).train()

    expected, real = footprint(adapted("meta"), 4, 32), footprint(adapted("cpu"), 4, 32)
    assert real.activation_bytes <= expected.activation_bytes < 1.15 * real.activation_bytes
    assert real.flops <= expected.flops < 1.15 * real.flops


def test_config_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(InputError, match="its config cannot be read"):
        skeleton_of(tmp_path, {"model_type": "nothing"})
