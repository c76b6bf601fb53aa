"""What a layer reads or gives, laid out example by example, for the starts that only look."""

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unlora.errors import InputError
from unlora.importance.accumulate import MODEL_INPUTS, Batch
from unlora.importance.hooks import LEAVE_OUT
from unlora.models.forward import completion_logits
from unlora.models.layer_use import keeps_examples_apart
from unlora.models.wrapping import CausalModel, evaluating


def by_example(name: str, verb: str, tensor: Tensor, mask: Tensor) -> Float[Tensor, "example token width"]:
    """Lay out what a hook was given as the examples of the batch, in float32 and without gradient.

    Args:
        name: of the target module.
        verb: what the module does with the tensor, for the message: "reads" or "puts out".
        tensor: whose positions are those of the batch, in whatever shape.
        mask: (example, token) of the batch.

    Raises:
        InputError: the examples do not lie one after another in it.
    """
    if not keeps_examples_apart(tensor.shape, *mask.shape) or tensor.shape[:-1].numel() != mask.numel():
        raise InputError(
            f"target module '{name}' {verb} a tensor of shape {tuple(tensor.shape)}, in which the {len(mask)} "
            f"examples of {mask.shape[1]} tokens do not lie one after another; {LEAVE_OUT}."
        )
    return tensor.detach().float().reshape(*mask.shape, -1)


@torch.no_grad()
def add_input_moments(
    model: CausalModel,
    layers: Mapping[str, nn.Module],
    moments: Mapping[str, Float[Tensor, "d_in d_in"]],
    batches: Iterable[Batch],
    progress: Callable[[int], None] = lambda examples: None,
) -> int:
    """Add x x^T to each layer's moment for every real token of every batch, x what the layer reads; forward only.

    Args:
        model: in whatever mode; it is read without dropout.
        layers: modules by name.
        moments: by the same names, float32.
        batches: of both prompt and answer.
        progress: told how many examples were read.

    Returns:
        How many tokens.

    Raises:
        InputError: a layer that took no part.
    """
    uses: dict[str, int] = dict.fromkeys(layers, 0)
    mask = torch.empty(0, 0)

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            read = by_example(name, "reads", given[0], mask)
            rows = read[mask.bool().to(read.device)]
            moments[name].add_((rows.T @ rows).cpu())
            uses[name] += 1

        return hook

    tokens = 0
    handles = [layer.register_forward_pre_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        with evaluating(model):
            for batch in batches:
                mask = batch["attention_mask"]
                tokens += int(mask.sum())
                completion_logits(model, {key: batch[key].to(model.device) for key in MODEL_INPUTS})
                progress(len(mask))
    finally:
        for handle in handles:
            handle.remove()
    if tokens and (unused := [name for name, count in uses.items() if not count]):
        raise InputError(f"target module '{unused[0]}' takes no part in a forward pass; {LEAVE_OUT}.")
    return tokens
