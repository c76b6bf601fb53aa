"""Reading tokens with a model on the meta device, where nothing has a value and no code may look at one."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.fx.experimental import _config as tracing

from unlora.errors import InputError
from unlora.models.reading import one_line
from unlora.shapes import TokenIds

T = TypeVar("T")


def read_shapes(ids: TokenIds, read: Callable[[dict[str, Any]], T]) -> T:
    """Call `read` with the tokens and a mask that the model's code takes as it is.

    In four dimensions attention takes a mask without looking into it; a model that computes with the mask itself (OPT
    its positions, BLOOM its biases, Mamba its inputs) does without one, is told the positions as well (Qwen-Omni counts
    them by it, in three dimensions), or has the usual mask of two dimensions. Where a model picks tokens, it picks them
    all.

    Args:
        ids: (batch, token).
        read: calls the model; what it has counted in a call that ends in an error must not count.

    Raises:
        InputError: the model's code cannot do without values.
    """
    rows, length = ids.shape
    whole = torch.ones(rows, 1, length, length, dtype=torch.bool, device=ids.device)
    places = torch.arange(length, device=ids.device).expand(3, rows, length)
    ways = (
        {"attention_mask": whole},
        {"attention_mask": None},
        {"attention_mask": whole, "position_ids": places},
        {"attention_mask": torch.ones_like(ids)},
    )
    failure = ""
    for given in ways:
        try:
            with tracing.patch(meta_nonzero_assume_all_nonzero=True):  # pyright: ignore[reportAttributeAccessIssue]
                return read({"input_ids": ids, **given})
        except Exception as error:  # Whatever a model's code meets that expects a mask of another kind
            failure = failure or one_line(error)
    raise InputError(f"model: cannot be read before it has values, its code looks at them ({failure}).")
