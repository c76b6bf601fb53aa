"""The weighted low-rank approximation problem."""

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.errors import InputError
from unlora.shapes import Weight

CHUNK_ENTRIES = 1 << 16
"""Entries of a matrix that are in float64 at a time (half a MiB: temporaries stay in the processor's cache)."""
CHUNK_ROWS = 64
"""Rows at a time where a row is long: products of fewer rows are slow."""


@dataclass(frozen=True)
class WeightedLowRankProblem:
    """argmin over matrices X of rank at most `rank` of sum_ij M_ij (W_ij - X_ij)^2.

    M comes in one of three forms: `row_weights` alone, M_ij = w_i; `row_weights` and `column_weights`, M_ij = w_i c_j
    (separable); or `weights`, all of M. Only the proportions of M matter to X.

    Raises:
        InputError: no weights or weights of two forms, sizes that do not fit, a rank out of range, numbers not finite,
            weights negative or all zero.
    """

    matrix: Weight
    """W, (d_out, d_in)."""
    rank: int
    """1 to min(d_out, d_in)."""
    _: KW_ONLY
    row_weights: Float[Tensor, " rows"] | None = None
    """w >= 0, (d_out,); multiplies the *squared* errors of a row."""
    column_weights: Float[Tensor, " columns"] | None = None
    """c >= 0, (d_in,); multiplies the squared errors of a column, beside `row_weights`."""
    weights: Float[Tensor, "rows columns"] | None = None
    """M >= 0, (d_out, d_in); multiplies the squared error of every entry."""

    def __post_init__(self) -> None:
        shape = tuple(self.matrix.shape)
        if not 1 <= self.rank <= min(shape):
            raise InputError(f"rank: must lie between 1 and {min(shape)} for a matrix of {shape}, found {self.rank}.")
        if not torch.stack(torch.aminmax(self.matrix)).isfinite().all():  # a thirtieth of the time of every entry's
            raise InputError("matrix: holds numbers that are not finite.")
        if (self.weights is None) == (self.row_weights is None):
            raise InputError("weights: give either row_weights, with or without column_weights, or weights.")
        if self.row_weights is None and self.column_weights is not None:
            raise InputError("column_weights: go beside row_weights, not beside weights.")
        _refuse_unless_weights("row_weights: one weight a row is needed", self.row_weights, shape, shape[:1])
        _refuse_unless_weights("column_weights: one weight a column is needed", self.column_weights, shape, shape[1:])
        _refuse_unless_weights("weights: one weight an entry is needed", self.weights, shape, shape)

    def chunks(self) -> Iterator[tuple[slice, Weight]]:
        """Yield a slice of rows and those rows of M in float64."""
        height, width = self.matrix.shape
        step = max(CHUNK_ROWS, CHUNK_ENTRIES // width)
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            yield rows, self._weights_of(rows)

    def weighted_norm(self, errors: Weight) -> float:
        """Return sqrt(sum_ij M_ij E_ij^2). A float32 norm drifts by 1e-4 on millions of entries."""
        if self.row_weights is not None and self.column_weights is None:
            return math.sqrt(
                float(self.row_weights.double() @ torch.linalg.vector_norm(errors, dim=1).double().square())
            )
        return math.sqrt(
            sum(float((weights * errors[rows].double().square()).sum()) for rows, weights in self.chunks())
        )

    def _weights_of(self, rows: slice) -> Weight:
        if self.weights is not None:
            return self.weights[rows].double()
        if self.row_weights is None:
            raise ValueError("a problem has weights")
        row_weights = self.row_weights[rows, None].double()
        if self.column_weights is None:
            return row_weights.expand(-1, self.matrix.shape[1])
        return row_weights * self.column_weights.double()


def _refuse_unless_weights(
    need: str, weights: Float[Tensor, "..."] | None, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    if weights is None:
        return
    if tuple(weights.shape) != expected:
        raise InputError(f"{need}, found {tuple(weights.shape)} for {shape}.")
    if not (weights.isfinite() & (weights >= 0)).all() or not weights.any():
        raise InputError(f"{need.partition(':')[0]}: must be finite, not negative, and not all zero.")
