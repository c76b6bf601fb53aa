"""A model whose knowledge is hidden between the levels of nf4, so that rounding really brings it back."""

import torch
from peft import PeftModel
from torch import Tensor

from tests.taught import PAD, Taught
from unlora.adapters import attach_plain_adapter
from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.data.collate import collate
from unlora.losses import Predictions
from unlora.models.target_modules import find_target_modules

_BELOW = (-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911)
_ABOVE = (0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0)
NF4_LEVELS = torch.tensor([*_BELOW, 0.0, *_ABOVE])
"""In units of the largest weight of a block (Dettmers et al. 2023, appendix E)."""

FURTHEST = 0.03
"""Less than half of the narrowest gap between two levels (0.0796 / 2), so that no weight leaves its level."""


def on_nf4_levels(weight: Tensor) -> Tensor:
    """The nearest level of every weight, in blocks of 64."""
    blocks = weight.reshape(-1, 64)
    largest = blocks.abs().amax(dim=1, keepdim=True)
    nearest = ((blocks / largest)[:, :, None] - NF4_LEVELS).abs().argmin(dim=-1)
    return (NF4_LEVELS[nearest] * largest).reshape(weight.shape)


def hidden_knowledge(taught: Taught, *, steps: int = 40) -> PeftModel:
    """A target whose weights lie on nf4's levels, and an adapter that forgets without taking any of them elsewhere."""
    plain = taught.load().model
    targets = find_target_modules(plain)
    for target in targets.values():
        target.module.get_parameter("weight").data = on_nf4_levels(target.weight())
    model = attach_plain_adapter(plain, targets, rank=8, alpha=8)
    forget, retain = (collate(taught.tokens(file), PAD) for file in (taught.forget, taught.retain))
    factors = [parameter for _, layer in lora_layers(model) for parameter in factor_parameters(layer)]
    optimiser = torch.optim.AdamW(factors, lr=5e-3, weight_decay=0.0)
    for _ in range(steps):
        # The logarithm gives examples that are still known as much pull as the others.
        (_losses(model, retain).mean() - _losses(model, forget).log().mean()).backward()
        optimiser.step()
        optimiser.zero_grad()
        _pull_back(model)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def _pull_back(model: PeftModel) -> None:
    for _, layer in lora_layers(model):
        lora_a, lora_b = factor_parameters(layer)
        largest = layer.get_base_layer().get_parameter("weight").reshape(-1, 64).abs().amax(dim=1, keepdim=True)
        furthest = float(((lora_b @ lora_a).reshape(-1, 64).abs() / largest).max())
        if furthest > FURTHEST:
            lora_b *= FURTHEST / furthest


def _losses(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean loss of every example."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return -Predictions.from_model_output(logits, batch["labels"]).mean_log_probs()
