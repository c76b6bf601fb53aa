"""What a model does with its linear layers when it reads text: tried in one short forward and backward pass."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from unlora.models.target_modules import TargetModule
from unlora.models.without_values import read_shapes
from unlora.models.wrapping import CausalModel, unwrap
from unlora.shapes import TokenIds

EXAMPLES, LENGTH = 3, 11
"""Of the text that is read: two primes that no width of a layer is."""


@dataclass
class LayerUse:
    """What happened to one layer."""

    called: bool = False
    felt: bool = False
    """The logits have a gradient with respect to its weight that is not zero throughout."""
    apart: bool = True
    """Its input keeps the examples apart, so that the gradient of each can be told."""


def try_layers(model: CausalModel, layers: Mapping[str, TargetModule]) -> dict[str, LayerUse]:
    """Let the model read a few tokens and see which layers are called, and which the output depends on.

    Nothing about the model is changed: no parameter gets a gradient, and its mode is put back. It may be on the meta
    device.
    """
    plain, uses = unwrap(model), {name: LayerUse() for name in layers}
    embedded: list[Tensor] = []
    with ExitStack() as stack:
        for module in plain.modules():
            stack.callback(setattr, module, "training", module.training)
        plain.eval()
        stack.enter_context(_gradients_from_the_embedding(plain, embedded))
        for name, layer in layers.items():
            stack.callback(layer.module.register_forward_hook(_watching(uses[name])).remove)

        def read(inputs: dict[str, Any]) -> None:
            embedded.clear()
            logits = model(**inputs, use_cache=False).logits
            if logits.requires_grad:
                torch.autograd.grad(logits.float().sum(), embedded, allow_unused=True)

        ids = _text(plain)
        if ids.is_meta:
            read_shapes(ids, read)
        else:
            read({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return uses


def keeps_examples_apart(shape: torch.Size | tuple[int, ...], examples: int, length: int) -> bool:
    """Whether a layer's input, (..., width), is laid out example by example."""
    return (len(shape) > 2 and shape[0] == examples) or tuple(shape[:-1]) == (examples * length,)


def writable_leaf(output: Tensor) -> tuple[Tensor, Tensor]:
    """Begin a graph at a tensor: return where it begins, and a copy after that in which a model may write."""
    leaf = output.detach().requires_grad_(True)
    return leaf, leaf.clone()


def _watching(use: LayerUse) -> Any:
    def felt(gradient: Tensor) -> None:
        use.felt |= gradient.is_meta or bool(gradient.any())

    def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        use.called = True
        given = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        if given is not None:
            use.apart &= keeps_examples_apart(given.shape, EXAMPLES, LENGTH)
        nothing = given is not None and not given.is_meta and not bool(given.any())
        if isinstance(output, Tensor) and output.requires_grad and not nothing:
            output.register_hook(felt)

    return hook


@contextmanager
def _gradients_from_the_embedding(model: PreTrainedModel, embedded: list[Tensor]) -> Iterator[None]:
    """Add to `embedded` what the embedding gives; everything after it can have a gradient."""

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        leaf, copy = writable_leaf(output)
        embedded.append(leaf)
        return copy

    handle = model.get_input_embeddings().register_forward_hook(hook)
    try:
        with torch.enable_grad():
            yield
    finally:
        handle.remove()


def _text(model: PreTrainedModel) -> TokenIds:
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    return (torch.arange(EXAMPLES * LENGTH, device=model.device) % vocabulary).reshape(EXAMPLES, LENGTH)
