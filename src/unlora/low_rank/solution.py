"""The solution of a weighted low-rank problem."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.low_rank.problem import WeightedLowRankProblem
from unlora.shapes import LoraA, LoraB

SolutionStatus = Literal["exact", "randomised", "converged", "max_iterations"]


@dataclass(frozen=True)
class LowRankSolution:
    """X = left @ right, balanced: column k of `left` and row k of `right` have the same norm."""

    left: Float[Tensor, "d_out rank"]
    right: Float[Tensor, "rank d_in"]
    weighted_residual: float
    """sqrt(sum_ij M_ij (W - X)_ij^2), in the units of the given weights."""
    relative_residual: float
    """`weighted_residual` over sqrt(sum_ij M_ij W_ij^2); 0 when the weighted matrix is zero."""
    status: SolutionStatus
    """Closed forms: whether a full SVD or a seeded sketch found the subspace. Iterations: whether they converged."""
    iterations: int
    """Steps of the descent; power iterations of the sketch; 0 when exact."""
    trace: tuple[float, ...] = ()
    """Weighted residual of the start and after each step of the descent; never rises. Empty for closed forms."""


def make_solution(
    problem: WeightedLowRankProblem,
    left: LoraB,
    right: LoraA,
    *,
    status: SolutionStatus,
    iterations: int,
    trace: tuple[float, ...] = (),
) -> LowRankSolution:
    """Return the factors with the residual that they have in the matrix's own precision, float32 at least."""
    matrix = problem.matrix.to(left)
    residual, whole = problem.weighted_norm(matrix - left @ right), problem.weighted_norm(matrix)
    return LowRankSolution(
        left=left,
        right=right,
        weighted_residual=residual,
        relative_residual=residual / whole if whole else 0.0,
        status=status,
        iterations=iterations,
        trace=trace,
    )


def symmetric_split(left: LoraB, right: LoraA) -> tuple[LoraB, LoraA]:
    """Return U S^1/2 and S^1/2 V^T of the singular value decomposition of left @ right: the same X, balanced."""
    left_basis, left_core = torch.linalg.qr(left)
    right_basis, right_core = torch.linalg.qr(right.T)
    inner_left, values, inner_right = torch.linalg.svd(left_core @ right_core.T)
    return left_basis @ inner_left * values.sqrt(), values.sqrt()[:, None] * (inner_right @ right_basis.T)
