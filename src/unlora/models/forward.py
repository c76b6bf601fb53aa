"""A forward pass that computes logits only where a label needs them."""

import inspect
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn


def completion_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Float[Tensor, "batch kept vocab"]:
    """Logits of the last positions of a right-padded batch, from the first that predicts a label to the end.

    The head is a large part of a small model, and prompts need no logits. Models whose forward has no
    `logits_to_keep` give all positions.

    Args:
        model: a causal language model, with or without PEFT around it.
        batch: input_ids, attention_mask and labels, each (batch, token).
    """
    labels = batch["labels"]
    first_label = int((labels != -100).any(dim=0).long().argmax())
    kept = labels.shape[1] - max(first_label - 1, 0)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
    if takes_logits_to_keep(model):
        inputs["logits_to_keep"] = kept
    return model(**inputs).logits


def takes_logits_to_keep(model: nn.Module) -> bool:
    """Whether the model's own forward, below PEFT's and accelerate's wrappers, can compute the last logits only."""
    while hasattr(model, "get_base_model") or hasattr(model, "module"):
        model = model.get_base_model() if hasattr(model, "get_base_model") else model.module  # type: ignore[operator, assignment]
    return "logits_to_keep" in inspect.signature(model.forward).parameters
