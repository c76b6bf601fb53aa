"""What a pass over the data could leave behind on a model, and batches that break one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.adapters.test_anchored import token_batch
from unlora.models.fingerprint import fingerprint

FORGET = [token_batch(), token_batch(4, 16)]
RETAIN = [token_batch(5, 18), token_batch(3, 24)]


def broken(batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The same batches and one with a token that no vocabulary has."""
    last = batches[-1] | {"input_ids": torch.full_like(batches[-1]["input_ids"], 10_000)}
    return [*batches, last]


def state_of(model: PreTrainedModel) -> dict[str, Any]:
    """Weights, flags, gradients, attributes and hooks of all modules."""
    return {
        "weights": fingerprint(model),
        "flags": {name: (value.requires_grad, id(value.grad)) for name, value in model.named_parameters()},
        "modules": {name: _state_of_module(module) for name, module in model.named_modules()},
    }


def unusual(model: PreTrainedModel) -> PreTrainedModel:
    """The same model in training mode but for one block, one weight frozen, one gradient there, one hook on a layer."""
    model.train()
    linear = [module for name, module in model.named_modules() if name.endswith(("q_proj", "c_attn"))]
    linear[0].eval()
    linear[0].weight.requires_grad_(False)
    linear[1].weight.grad = torch.ones_like(linear[1].weight)
    linear[1].register_forward_hook(lambda *_: None)
    return model


def _state_of_module(module: nn.Module) -> dict[str, Any]:
    kept = {}
    for key, value in vars(module).items():
        if isinstance(value, Mapping):
            kept[key] = {inner: id(entry) for inner, entry in value.items()}
        elif isinstance(value, bool | int | float | str | None):
            kept[key] = value
        else:
            kept[key] = id(value)
    return kept
