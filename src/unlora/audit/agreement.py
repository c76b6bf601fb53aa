"""How far the gradients of single forget examples point the same way: a screen for what relearning may bring back.

Where they agree, a step towards one answer is a step towards all of them, so that few examples taught may bring the
others back. One backward pass, no training. Whether it predicts recovery is another question: docs/results/attackers.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unlora import processes
from unlora.audit.estimates import RESAMPLES
from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.importance.accumulate import accumulate
from unlora.importance.hooks import measuring
from unlora.importance.spaces import Inputs, OutputGradients
from unlora.metrics.intervals import Interval, bootstrap_interval
from unlora.models.target_modules import find_target_modules
from unlora.models.wrapping import CausalModel, unwrap

SKETCH = 48
"""Random directions on each side of a layer: 2,304 numbers stand for an example's gradient there."""


Cosines = Float[np.ndarray, "example example"]


class LayerGradients:
    """Every example's gradient of one layer, in `SKETCH` random directions on either side.

    With P and Q of independent normal entries of variance 1/k, <P^T G Q, P^T G' Q> is <G, G'> in expectation. A side
    that is no wider than k is kept as it is.
    """

    def __init__(self, name: str, d_out: int, d_in: int, *, columns: int, seed: int, device: torch.device) -> None:
        """Draw both projections.

        Args:
            name: of the layer: what is drawn goes by it.
            d_out: width of the output.
            d_in: width of the input.
            columns: k.
            seed: of what is drawn.
            device: where the model computes.
        """
        digest = hashlib.sha256(f"agreement:{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        self._sides = [
            torch.randn(width, columns, generator=generator).mul_(columns**-0.5).to(device) if width > columns else None
            for width in (d_out, d_in)
        ]
        self._size = min(d_out, columns) * min(d_in, columns)
        self._found: list[Float[Tensor, "batch entry"]] = []

    @property
    def gradients(self) -> Float[Tensor, "example entry"]:
        """Of every example, in order."""
        return torch.cat(self._found)

    def update(self, inputs: Inputs, output_gradients: OutputGradients) -> None:
        """Take in one batch."""
        left, right = (
            tensor.float() if side is None else tensor.float() @ side
            for tensor, side in zip((output_gradients, inputs), self._sides, strict=True)
        )
        self._found.append((left.transpose(1, 2) @ right).flatten(1).cpu())

    def skip(self, sample_count: int) -> None:
        """Leave room for a batch that another process takes in."""
        self._found.append(torch.zeros(sample_count, self._size))

    def combine(self) -> None:
        """Fill the room with what the other processes have taken in."""
        self._found = [processes.total(self.gradients)]


def gradient_cosines(
    model: CausalModel,
    examples: Sequence[TokenisedExample],
    *,
    pad_token_id: int,
    batch_size: int = 8,
    columns: int = SKETCH,
    seed: int = 0,
) -> Cosines:
    """Cosine between the gradients of any two examples' mean completion NLL, by the weights of all linear layers.

    Args:
        model: plain or with an adapter that is on; nothing of it is changed.
        examples: as tokens.
        pad_token_id: fills short rows.
        batch_size: examples a backward pass.
        columns: of the random projection; exact where no layer is wider.
        seed: of the projection.

    Returns:
        Symmetric; NaN in the row and column of an example whose gradient is zero.
    """
    plain = unwrap(model)
    targets = find_target_modules(model)
    layers = {
        name: LayerGradients(name, target.d_out, target.d_in, columns=columns, seed=seed, device=plain.device)
        for name, target in targets.items()
    }
    batches = (
        collate(examples[start : start + batch_size], pad_token_id) for start in range(0, len(examples), batch_size)
    )
    with measuring(plain):
        accumulate(plain, targets, batches, layers, set_name="forget")
    gram = torch.zeros(len(examples), len(examples), dtype=torch.float64)
    for layer in layers.values():
        of_layer = layer.gradients.double()
        gram += of_layer @ of_layer.T
    norms = gram.diagonal().sqrt()
    norms[norms == 0] = torch.nan
    return (gram / norms[:, None] / norms[None, :]).numpy()


class Agreement(NamedTuple):
    """Mean cosine over pairs of examples."""

    value: float
    interval: Interval
    """95 %, over examples."""
    example_count: int
    unscored_count: int


def mean_agreement(cosines: Cosines, other: Cosines | None = None, *, seed: int = 0) -> Agreement:
    """Mean over all pairs of two examples; with `other`, minus the same examples' mean in another model.

    Whole examples are drawn again, with all their pairs; an example is no pair with itself.
    """
    scored = np.isfinite(np.diagonal(cosines)) & (np.isfinite(np.diagonal(other)) if other is not None else True)
    kept = [one[np.ix_(scored, scored)] for one in (cosines, other) if one is not None]
    difference = kept[0] - kept[1] if len(kept) == 2 else kept[0]
    count = len(difference)
    if count < 2:
        return Agreement(np.nan, Interval(np.nan, np.nan), count, int((~scored).sum()))
    pairs = 1.0 - np.eye(count)

    def mean(drawn: Int[np.ndarray, "*resample example"]) -> Float[np.ndarray, "*resample"]:
        weights = (drawn[..., None] == np.arange(count)).sum(axis=-2).astype(float)
        above = np.einsum("...i,ij,...j->...", weights, difference * pairs, weights)
        below = np.einsum("...i,ij,...j->...", weights, pairs, weights)
        # Of very few examples a resample may be one example throughout, which has no pair: it says nothing new.
        return np.where(below > 0, above / np.maximum(below, 1.0), everything)

    everything = float((difference * pairs).sum() / pairs.sum())
    interval = bootstrap_interval((np.arange(count),), mean, confidence=0.95, seed=seed, resamples=RESAMPLES)
    return Agreement(everything, interval, count, int((~scored).sum()))
