"""What an adapter does to all forget examples alike: the part of it that a few of them, taught again, undo for all.

Ours, after the finding that updates in what forget examples share are the ones that relearning reverses (RepSelect,
arXiv 2606.17168; CIR, arXiv 2509.11816; MCU, arXiv 2605.11685). Those take the shared directions out of the update;
here training itself is asked for forgetting that has none.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unlora.adapters.anchored import ADAPTER_NAME, lora_layers
from unlora.errors import InputError
from unlora.losses import NOT_SCORED
from unlora.shapes import TokenIds

TINY = 1e-8
"""Added to the mean square of a shift: before the first step nothing is shifted, and 0 / 0 shares nothing."""


def shared_share(means: Float[Tensor, "example d_out"]) -> Float[Tensor, ""]:
    """Share of a layer's shift that is common to the examples: ||mean_i h_i||^2 / mean_i ||h_i||^2.

    h_i is `mean_shift` of example i. 1 means that all examples are shifted alike, 1/n that n examples are shifted in
    directions at right angles, 0 that their shifts cancel.
    """
    return means.mean(dim=0).square().sum() / (means.square().sum(dim=1).mean() + TINY)


def mean_shift(
    shifts: Float[Tensor, "example token d_out"], scored: Bool[Tensor, "example token"]
) -> Float[Tensor, "example d_out"]:
    """Mean over each example's scored tokens of what the adapter adds to a layer's output, in float32."""
    weights = scored.to(shifts.dtype).unsqueeze(1)
    return (weights @ shifts).squeeze(1).float() / scored.sum(dim=1, keepdim=True).clamp(min=1)


class LayerPass(NamedTuple):
    """What a layer's adapter added in one forward pass."""

    rows: Int[Tensor, " row"]
    """Of the batch."""
    labels: TokenIds
    shifts: Float[Tensor, "row token d_out"]


class SharedShift:
    """Watches the adapter's linear layers while a batch is read, and says how much of their shift the first rows share.

    Experts that share a tensor are not watched: PEFT adds their factors to the weights, not to an output.
    """

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._rows: Int[Tensor, " row"] = torch.empty(0, dtype=torch.long)
        self._labels = torch.empty(0, 0, dtype=torch.long)
        self._seen: dict[int, list[LayerPass]] = {}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Keep what every layer's adapter adds, for as long as the block lasts and until `share` is asked."""
        self._seen = {}
        layers = [layer.lora_B[ADAPTER_NAME] for _, layer in lora_layers(model)]
        handles = [layer.register_forward_hook(self._keeper(place)) for place, layer in enumerate(layers)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def before(self, rows: Int[Tensor, " row"], batch: Mapping[str, Tensor]) -> None:
        """Take note of what the next forward pass reads: rows of the batch, and their tokens."""
        self._rows, self._labels = rows, batch["labels"]

    def share(self, rows: int) -> Float[Tensor, ""]:
        """Mean over the layers of the share that the first `rows` rows, the forget examples, have in common.

        Raises:
            InputError: no layer keeps the examples apart.
        """
        shares = []
        for passes in self._seen.values():
            wanted = [seen.rows < rows for seen in passes]
            # The output at position t predicts token t + 1.
            means = [
                mean_shift(seen.shifts[one, :-1], seen.labels[one, 1:] != NOT_SCORED)
                for seen, one in zip(passes, wanted, strict=True)
            ]
            if sum(map(len, means)) == rows:
                shares.append(shared_share(torch.cat(means)))
        self._seen = {}
        if not shares:
            raise InputError(
                "objective.separation: no linear layer with an adapter keeps the examples of a batch apart."
            )
        return torch.stack(shares).mean()

    def _keeper(self, place: int) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if output.shape[:-1] == self._labels.shape:
                self._seen.setdefault(place, []).append(LayerPass(self._rows, self._labels, output))

        return keep
