"""The solution of a weighted low-rank problem."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LowRankSolution:
    """X = left @ right, balanced: column k of `left` and row k of `right` have the same norm."""

    left: Float[Tensor, "d_out rank"]
    right: Float[Tensor, "rank d_in"]
    weighted_residual: float
    """sqrt(sum_ij w_i (W - X)_ij^2), in the units of the given weights."""
    relative_residual: float
    """`weighted_residual` over sqrt(sum_ij w_i W_ij^2); 0 when the weighted matrix is zero."""
    status: Literal["exact", "randomised"]
    """Whether a full SVD or a seeded sketch found the subspace."""
    iterations: int
    """Power iterations of the sketch; 0 when exact."""
