"""Weights that bitsandbytes keeps in 4 or 8 bits, read back as the numbers that the layer multiplies with."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from unlora.errors import InputError


def is_rounded(module: nn.Module) -> bool:
    """Whether a linear layer's weight is kept in fewer bits than a floating-point number has.

    Such a weight can have no gradient. 4-bit codes may be stored as bfloat16, so the number format alone does not tell.
    """
    weight = module.get_parameter("weight")
    return getattr(weight, "quant_state", None) is not None or not weight.is_floating_point()


def full_weight(module: nn.Module) -> Float[Tensor, "rows columns"]:
    """Return a layer's weight as it is stored, in float32 and detached; a view where it is float32 already.

    A rounded one is multiplied out by bitsandbytes: a new tensor, 8 (4-bit) or 4 times (8-bit) as large, for the caller
    to drop before the next layer's.

    Raises:
        InputError: a format of another library.
    """
    weight: Any = module.get_parameter("weight")
    if not is_rounded(module):
        return weight.detach().float()
    from bitsandbytes import functional  # seconds, and an extra

    if getattr(weight, "quant_state", None) is not None:
        return functional.dequantize_4bit(weight.data, weight.quant_state).float()
    # bitsandbytes moves the scales of the rows from the weight to the layer in the first forward pass.
    scales = getattr(weight, "SCB", None)
    if scales is None:
        scales = getattr(getattr(module, "state", None), "SCB", None)
    if scales is None:
        raise InputError(
            f"a {type(module).__name__} keeps its weight as {weight.dtype}, which only bitsandbytes' formats explain; "
            "use a model in floating point, or one in 4 or 8 bits of bitsandbytes."
        )
    return functional.int8_vectorwise_dequant(weight.data, scales).float()
