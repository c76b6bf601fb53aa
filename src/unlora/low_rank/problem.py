"""The weighted low-rank approximation problem."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from unlora.errors import InputError
from unlora.shapes import Weight


@dataclass(frozen=True)
class WeightedLowRankProblem:
    """argmin over matrices X of rank at most `rank` of sum_ij w_i (W_ij - X_ij)^2.

    Raises:
        InputError: sizes that do not fit, a rank out of range, numbers not finite, weights negative or all zero.
    """

    matrix: Weight
    """W, (d_out, d_in)."""
    row_weights: Float[Tensor, " rows"]
    """w >= 0, (d_out,); multiplies the *squared* errors of a row; only the proportions matter to the solution."""
    rank: int
    """1 to min(d_out, d_in)."""

    def __post_init__(self) -> None:
        shape, weights = tuple(self.matrix.shape), self.row_weights
        if tuple(weights.shape) != shape[:1]:
            raise InputError(f"row_weights: one weight a row is needed, found {tuple(weights.shape)} for {shape}.")
        if not 1 <= self.rank <= min(shape):
            raise InputError(f"rank: must lie between 1 and {min(shape)} for a matrix of {shape}, found {self.rank}.")
        if not self.matrix.isfinite().all():
            raise InputError("matrix: holds numbers that are not finite.")
        if not (weights.isfinite() & (weights >= 0)).all() or not weights.any():
            raise InputError("row_weights: must be finite, not negative, and not all zero.")
