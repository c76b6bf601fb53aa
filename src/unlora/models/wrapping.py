"""A model with a LoRA adapter and the plain model under it: one name for each part, whether wrapped or not."""

from collections.abc import Iterator
from contextlib import contextmanager

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

CausalModel = PreTrainedModel | PeftModel

PEFT_PREFIX = "base_model.model."
"""Before the name of everything under a PeftModel."""


def unwrap(model: CausalModel) -> PreTrainedModel:
    """Return the transformers model under a PeftModel (its adapter layers stay in place), or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model  # pyright: ignore[reportReturnType]


def canonical_name(name: str) -> str | None:
    """Return the name a module or tensor of `unwrap(model)` has in the plain model; None for parts of an adapter."""
    parts = name.split(".")
    if any(part.startswith("lora_") for part in parts):
        return None
    return ".".join(part for part in parts if part != "base_layer")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` in eval mode (no dropout, no gradient checkpointing) and give it its former mode back."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
