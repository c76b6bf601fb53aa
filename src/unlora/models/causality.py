"""Whether a model predicts each token from those before it alone, which every number here takes for granted."""

from typing import Any

import torch
from transformers import PreTrainedModel

from unlora.errors import InputError
from unlora.models.forward import takes
from unlora.models.merge import compare_logits
from unlora.models.quantised import quantisation_of
from unlora.models.reading import reading
from unlora.models.wrapping import evaluating

TOLERANCE = {"8bit": 0.1, None: 0.02, "4bit": 0.02}
"""Of the relative difference. 8-bit layers treat outliers of one token in all of them; other models differ by 1e-6."""
LENGTH = 11
"""Tokens that are read, their places named and kept in mind as in scoring: Reformer reads multiples of its chunk alone,
and for BLT transformers 5.23 makes no memory."""
EXACT = 1e-4
"""In float32: the first token of an encoder with small weights differs by less than a hundredth."""


@torch.no_grad()
def refuse_two_sided(name: str, model: PreTrainedModel) -> None:
    """Refuse an encoder: read two texts that begin with the same token, and compare the logits of that position.

    Raises:
        InputError: they differ, are not finite, or the model cannot compute them.
    """
    count = model.config.get_text_config().vocab_size
    first = torch.full((2, 1), count // 3)
    rest = torch.linspace(0, count - 1, 2 * (LENGTH - 1)).long().reshape(2, LENGTH - 1)
    inputs: dict[str, Any] = {"input_ids": torch.cat([first, rest], dim=1).to(model.device)}
    inputs["use_cache"] = takes(model, "past_key_values")
    if takes(model, "position_ids"):
        inputs["position_ids"] = torch.arange(LENGTH, device=model.device).repeat(2, 1)
    with reading(f"model '{name}': cannot be computed with"), evaluating(model):
        logits = model(**inputs).logits[:, 0].float()
    if not torch.isfinite(logits).all():
        raise InputError(f"model '{name}': its logits are not finite; its weights hold NaN or infinity, or overflow.")
    if torch.equal(logits[0], logits[1]):  # all of them nought, perhaps, of which there is no relative difference
        return
    difference = compare_logits(logits[:1, None], logits[1:, None], dtype=torch.float32).relative_difference
    bits = quantisation_of(model)
    if not difference <= (EXACT if bits is None and model.dtype == torch.float32 else TOLERANCE[bits]):
        raise InputError(
            f"model '{name}': its type '{model.config.model_type}' reads both sides of a token (the first logits "
            f"change by {difference:.0%} with the second token); not a causal language model."
        )
