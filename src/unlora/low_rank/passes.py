"""What the elementwise solver computes from all entries of W and M, in float64, a chunk of rows at a time.

With E = W - L R: f(L, R) = sum_ij M_ij E_ij^2. M is divided by its mean, so that its scale changes nothing.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from unlora.low_rank.problem import CHUNK_ENTRIES, WeightedLowRankProblem

Left = Float64[Tensor, "d_out rank"]
Right = Float64[Tensor, "rank d_in"]
NormalMatrices = Float64[Tensor, "rows rank rank"]

RIDGE = 1e-12
"""Added to the diagonal of a row's normal matrix, as a share of it: a row with fewer weighted entries than the rank has
a singular one."""


class FactorPair(NamedTuple):
    """A pair of factors, or a change of both."""

    left: Left
    right: Right

    def plus(self, change: "FactorPair", share: float = 1.0) -> "FactorPair":
        """Return these factors moved by `share` of `change`."""
        return FactorPair(self.left + share * change.left, self.right + share * change.right)

    def dot(self, other: "FactorPair") -> float:
        """Inner product over all entries of both."""
        return float((self.left * other.left).sum() + (self.right * other.right).sum())


class Descent(NamedTuple):
    """Where a pair of factors stands."""

    objective: float
    """f, to be made small."""
    force: FactorPair
    """Minus half the gradient: (M E) R^T and L^T (M E)."""


class Entries:
    """The passes over one problem."""

    def __init__(self, problem: WeightedLowRankProblem) -> None:
        self.problem = problem
        total = sum(float(weights.sum()) for _, weights in problem.chunks())
        self.scale = problem.matrix.numel() / total
        """What M is multiplied by."""

    def descent(self, at: FactorPair) -> Descent:
        """Return f and minus half its gradient."""
        objective, left, right = 0.0, torch.empty_like(at.left), torch.zeros_like(at.right)
        for rows, weights in self.problem.chunks():
            errors = self.problem.matrix[rows].double() - at.left[rows] @ at.right
            weighted = errors * weights * self.scale
            objective += float((weighted * errors).sum())
            left[rows] = weighted @ at.right.T
            right += at.left[rows].T @ weighted
        return Descent(objective, FactorPair(left, right))

    def along(self, at: FactorPair, step: FactorPair) -> tuple[float, float, float, float]:
        """Return a, b, c, d of f(L + t dL, R + t dR) = f(L, R) + a t + b t^2 + c t^3 + d t^4."""
        totals = [0.0] * 4
        for rows, weights in self.problem.chunks():
            errors = self.problem.matrix[rows].double() - at.left[rows] @ at.right
            first = step.left[rows] @ at.right + at.left[rows] @ step.right
            second = step.left[rows] @ step.right
            weighted, weighted_second = first * weights * self.scale, second * weights * self.scale
            totals[0] -= 2 * float((errors * weighted).sum())
            totals[1] += float((weighted * first).sum()) - 2 * float((errors * weighted_second).sum())
            totals[2] += 2 * float((weighted_second * first).sum())
            totals[3] += float((weighted_second * second).sum())
        return totals[0], totals[1], totals[2], totals[3]

    def alternating_solves(self, at: FactorPair) -> "AlternatingSolves":
        """Return the normal matrices of every row of L given R, and of every column of R given L, factorised.

        A row's is R diag(M_i) R^T: all rows' at once are M against the r (r + 1) / 2 products of two rows of R.
        """
        height, width = self.problem.matrix.shape
        rank = at.right.shape[0]
        pairs = torch.triu_indices(rank, rank, device=at.right.device)
        row_sums = at.left.new_empty(height, pairs.shape[1])
        column_sums = at.right.new_zeros(width, pairs.shape[1])
        slab = max(rank, CHUNK_ENTRIES // max(height, width))
        for rows, weights in self.problem.chunks():
            scaled = weights * self.scale
            for start in range(0, pairs.shape[1], slab):
                part = slice(start, start + slab)
                first, second = pairs[:, part]
                row_sums[rows, part] = scaled @ (at.right[first] * at.right[second]).T
                column_sums[:, part] += scaled.T @ (at.left[rows][:, first] * at.left[rows][:, second])
        return AlternatingSolves(_factorise(row_sums, pairs, rank), _factorise(column_sums, pairs, rank))


class AlternatingSolves(NamedTuple):
    """Cholesky factors (row, rank, rank); rows that cannot be factorised have none and are not moved."""

    rows: tuple[NormalMatrices, Float64[Tensor, " rows"]]
    columns: tuple[NormalMatrices, Float64[Tensor, " columns"]]

    def change(self, force: FactorPair) -> FactorPair:
        """What weighted least squares for every row given R, and for every column given L, would change."""
        return FactorPair(_solve(*self.rows, force.left), _solve(*self.columns, force.right.T).T)


def _factorise(
    sums: Float64[Tensor, "rows pairs"], pairs: Int[Tensor, "2 pairs"], rank: int
) -> tuple[NormalMatrices, Float64[Tensor, " rows"]]:
    normal = sums.new_empty(len(sums), rank, rank)
    normal[:, pairs[0], pairs[1]] = sums
    normal[:, pairs[1], pairs[0]] = sums
    diagonal = normal.diagonal(dim1=1, dim2=2)
    diagonal += torch.where(diagonal > 0, RIDGE * diagonal, 1.0)  # a row without weight has no force either
    factors, failed = torch.linalg.cholesky_ex(normal)
    return factors, (failed == 0).to(sums)


def _solve(
    factors: NormalMatrices, sound: Float64[Tensor, " rows"], force: Float64[Tensor, "rows rank"]
) -> Float64[Tensor, "rows rank"]:
    return torch.where(sound[:, None] > 0, torch.cholesky_solve(force[:, :, None], factors)[:, :, 0], 0.0)
