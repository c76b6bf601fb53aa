"""An adapter that acts on some rows of a batch less than on others, so that two terms read it at two strengths.

Ours: the forget term reads the update at a part of its strength, the retain term at all of it. What forgets at half the
strength is forgotten with a reserve at the whole, and the forget term goes on pulling at every example where at full
strength those that are forgotten would have no gradient any more; the retain term holds what is deployed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from unlora.adapters.anchored import ADAPTER_NAME, lora_layers
from unlora.adapters.expert_factors import expert_layers
from unlora.errors import InputError
from unlora.importance.hooks import LEAVE_OUT
from unlora.models.layer_use import keeps_examples_apart
from unlora.training.parts import Part

SETTING = "objective.forget_strength"


class RowStrength:
    """Multiplies what the adapter adds to a layer's output, row by row, while the model is in training mode.

    Who looks at the model between two steps sees it whole.
    """

    def __init__(self) -> None:
        """All rows at 1."""
        self._rows: Float[Tensor, " row"] | None = None
        self._length = 0

    @contextmanager
    def installed(self, model: PeftModel) -> Iterator[None]:
        """Act for as long as the block lasts: backward passes that read layers again need it as forward passes do.

        Raises:
            InputError: a part of the adapter has no rows to act on: that of fused experts.
        """
        if any(True for _ in expert_layers(model)):
            raise InputError(
                f"{SETTING}: experts read tokens and not examples, so that their adapter has one strength; {LEAVE_OUT}."
            )
        handles = [
            layer.lora_B[ADAPTER_NAME].register_forward_hook(self._scaled(name)) for name, layer in lora_layers(model)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def set(self, rows: Float[Tensor, " row"], length: int) -> None:
        """Take the strength of every row of the batches of `length` tokens that follow, until it is set again."""
        self._rows, self._length = rows, length

    def _scaled(self, name: str) -> Any:
        def hook(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            if self._rows is None or not module.training:
                return output
            if not keeps_examples_apart(output.shape, len(self._rows), self._length):
                raise InputError(f"{SETTING}: layer '{name}' does not keep the examples of a batch apart; {LEAVE_OUT}.")
            # (row, token, d) as a rule; (row * token, d) where a model lays its tokens in one line.
            each = self._rows.to(output).repeat_interleave(output.shape[0] // len(self._rows))
            return output * each.reshape(-1, *(1 for _ in output.shape[1:]))

        return hook


def strengths(parts: Sequence[Part], count: int, forget_strength: float) -> Float[Tensor, " row"]:
    """One number a row: 1 for the retain part, `forget_strength` for the others; `count` rows a part."""
    return torch.tensor([1.0 if part == "retain" else forget_strength for part in parts]).repeat_interleave(count)
