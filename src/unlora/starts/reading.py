"""What a layer reads or gives, laid out example by example, for the starts that only look."""

from jaxtyping import Float
from torch import Tensor

from unlora.errors import InputError
from unlora.importance.hooks import LEAVE_OUT
from unlora.models.layer_use import keeps_examples_apart


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
