"""What an adapter's files stand for, added to the weights without PEFT and without unlora's reading of them."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

PREFIX, END = "base_model.model.", ".lora_A.weight"


@torch.no_grad()
def add_by_hand(model: nn.Module, adapter: Path) -> None:
    """Add s B A to every weight that the files of an adapter name.

    The wrappers of several tensors of one module lie in each other: the innermost is that of the tensor that comes
    first in the module. A layer that several blocks share stands in the files once for each, and gets its update once;
    layers that share a weight and not more have an adapter each, which parts them.
    A tensor (expert, d_out, d_in) has A as (expert x rank, d_in), expert by expert, and B as
    (d_out, rank x expert), the experts of a rank together; one that says it is transposed is (expert, d_in, d_out).
    """
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    scaling, wanted = settings["lora_alpha"] / settings["r"], settings.get("target_parameters") or []
    tensors = load_file(adapter / "adapter_model.safetensors")
    changed = set[int]()
    for key, lora_a in tensors.items():
        if not key.endswith(END):
            continue
        lora_b, name = tensors[key.replace(".lora_A.", ".lora_B.")], key.removeprefix(PREFIX).removesuffix(END)
        holder = ".".join(part for part in name.split(".") if part != "base_layer")
        module = model.get_submodule(holder)
        held = [one for one, _ in module.named_parameters(recurse=False) if _named(f"{holder}.{one}", wanted)]
        dtype = next(module.parameters()).dtype
        lora_a, lora_b = lora_a.to(dtype), lora_b.to(dtype)
        if not held:
            if id(module) in changed:
                continue
            changed.add(id(module))
            weight, update = module.get_parameter("weight"), scaling * lora_b @ lora_a
            module.weight = nn.Parameter(weight + (update.T if isinstance(module, Conv1D) else update))
            continue
        weight = module.get_parameter(held[len(held) - 1 - name.split(".").count("base_layer")])
        _add_to_experts(weight, lora_a, scaling * lora_b, transposed=getattr(module, "is_transposed", False))


def _add_to_experts(weight: Tensor, lora_a: Tensor, lora_b: Tensor, *, transposed: bool) -> None:
    count = len(weight)
    rank = len(lora_a) // count
    for expert in range(count):
        update = lora_b[:, expert::count] @ lora_a[expert * rank : (expert + 1) * rank]
        weight[expert] += update.T if transposed else update


def _named(name: str, wanted: list[str]) -> bool:
    return any(name == one or name.endswith(f".{one}") for one in wanted)
