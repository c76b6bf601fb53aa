"""Adapters whose names PEFT takes for others when it loads them: shared experts, and dense layers beside them."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import save_file

from tests.importance.test_experts import batch, lively
from tests.tiny import build_tiny_tokenizer
from unlora.adapters.export import load_trained_adapter
from unlora.errors import InputError
from unlora.models.load import load_model
from unlora.models.target_modules import find_target_modules
from unlora_research.model_map.by_hand import add_by_hand

MISREAD = [
    ("deepseek_v3", "shared_experts"),
    ("glm4_moe", "layers.0.mlp"),
    ("qwen3_next", "shared_expert."),
    ("laguna", "shared_experts"),
]
"""Class, and part of the names of layers that PEFT does not find again; the attention beside them it does."""


def written_by_hand(kind: str, part: str, folder: Path) -> None:
    """An adapter as a tool that knows nothing of PEFT's new names would write it, on these layers and the attention."""
    layers = find_target_modules(lively(kind))
    names = [name for name in layers if name.endswith("o_proj") or (part in name and name.endswith("_proj"))]
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name in names:
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(2, layers[name].d_in, generator=generator)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(layers[name].d_out, 2, generator=generator)
    LoraConfig(r=2, lora_alpha=4, target_modules=names, task_type="CAUSAL_LM").save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors")


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=batch()["input_ids"]).logits


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "part"), MISREAD)
def test_an_adapter_that_peft_misreads_is_refused_with_the_reason(kind: str, part: str, tmp_path: Path):
    written_by_hand(kind, part, tmp_path / "adapter")
    by_hand = lively(kind)
    add_by_hand(by_hand, tmp_path / "adapter")
    misread = PeftModel.from_pretrained(lively(kind), str(tmp_path / "adapter"))
    assert float((logits(misread) - logits(by_hand)).abs().max()) > 0.1
    with pytest.raises(InputError, match=r"PEFT changes names .* layers that the file has \(.*_proj\) do not arrive"):
        load_trained_adapter(lively(kind), tmp_path / "adapter")


@pytest.mark.filterwarnings("ignore")
def test_the_same_adapter_as_target_is_refused(tmp_path: Path):
    lively("deepseek_v3").save_pretrained(tmp_path / "base")
    for folder in ("base", "adapter"):
        build_tiny_tokenizer().save_pretrained(tmp_path / folder)
    written_by_hand("deepseek_v3", "shared_experts", tmp_path / "adapter")
    with pytest.raises(InputError, match="PEFT changes names"):
        load_model(str(tmp_path / "adapter"), base=str(tmp_path / "base"), device=torch.device("cpu"))


@pytest.mark.filterwarnings("ignore")
def test_one_on_the_attention_alone_is_read(tmp_path: Path):
    written_by_hand("deepseek_v3", "nothing", tmp_path / "adapter")
    by_hand = lively("deepseek_v3")
    add_by_hand(by_hand, tmp_path / "adapter")
    found = logits(load_trained_adapter(lively("deepseek_v3"), tmp_path / "adapter"))
    torch.testing.assert_close(found, logits(by_hand), atol=1e-5, rtol=1e-5)
