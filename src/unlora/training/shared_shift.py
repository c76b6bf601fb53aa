"""What an adapter does to all forget examples alike: the part of it that a few of them, taught again, undo for all.

Ours, after the finding that updates in what forget examples share are the ones that relearning reverses (RepSelect,
arXiv 2606.17168; CIR, arXiv 2509.11816; MCU, arXiv 2605.11685). Those take the shared directions out of the update;
here training itself is asked for forgetting that has none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unlora.adapters.anchored import ADAPTER_NAME, lora_layers
from unlora.errors import InputError
from unlora.losses import NOT_SCORED

TINY = 1e-8
"""Added to the mean square of a shift: before the first step nothing is shifted, and 0 / 0 shares nothing."""


def shared_share(
    shifts: Float[Tensor, "example token d_out"], scored: Bool[Tensor, "example token"]
) -> Float[Tensor, ""]:
    """Share of a layer's shift that is common to the examples: ||mean_i h_i||^2 / mean_i ||h_i||^2.

    h_i is the mean over example i's scored tokens of what the adapter adds to the layer's output. 1 means that all
    examples are shifted alike, 1/n that n examples are shifted in directions at right angles, 0 that their shifts
    cancel.
    """
    weights = scored.to(shifts.dtype).unsqueeze(-1)
    means = (shifts * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    return means.mean(dim=0).square().sum() / (means.square().sum(dim=1).mean() + TINY)


class SharedShift:
    """Watches the adapter's linear layers in one forward pass, and says how much of their shift the first rows share.

    Experts that share a tensor are not watched: PEFT adds their factors to the weights, not to an output.
    """

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._seen: list[Tensor] = []

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Keep what every layer's adapter adds, for as long as the block lasts and until `share` is asked."""
        self._seen = []
        layers = [layer.lora_B[ADAPTER_NAME] for _, layer in lora_layers(model)]
        handles = [layer.register_forward_hook(self._keep) for layer in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def share(self, labels: Tensor, rows: int) -> Float[Tensor, ""]:
        """Mean over the layers of the share that the first `rows` rows have in common.

        Args:
            labels: (row, token) of the batch that was read.
            rows: how many rows are forget examples.

        Raises:
            InputError: no layer keeps the examples apart.
        """
        # The output at position t predicts token t + 1.
        scored = labels[:rows, 1:] != NOT_SCORED
        shape = labels.shape
        shares = [shared_share(one[:rows, :-1], scored) for one in self._seen if one.shape[:-1] == shape]
        self._seen = []
        if not shares:
            raise InputError(
                "objective.separation: no linear layer with an adapter keeps the examples of a batch apart."
            )
        return torch.stack(shares).mean()

    def _keep(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._seen.append(output)
