"""Weights per row and per column: closed form by one singular value decomposition."""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from unlora.errors import InputError
from unlora.low_rank.problem import WeightedLowRankProblem
from unlora.low_rank.row_weighted import square_roots
from unlora.low_rank.solution import LowRankSolution, make_solution, symmetric_split
from unlora.low_rank.subspace import leading_right_vectors


class SeparableFactors(NamedTuple):
    """The solution in float64, before it is measured."""

    left: Float64[Tensor, "d_out rank"]
    right: Float64[Tensor, "rank d_in"]
    iterations: int
    """Power iterations of the sketch; 0 when exact."""


@torch.no_grad()
def solve_separable(problem: WeightedLowRankProblem, *, seed: int = 0) -> LowRankSolution:
    """Solve argmin over rank-r X of ||D (W - X) C||_F with D = diag(sqrt(w)), C = diag(sqrt(c)).

    Args:
        problem: W (d_out, d_in), row weights (d_out,), column weights (d_in,) (none: ones), rank.
        seed: of the sketch; the global random state is neither read nor moved.

    Returns:
        Factors in float32 (float64 for a float64 matrix) on the matrix's device: the symmetric split of X.

    Raises:
        InputError: the problem has weights of entries.
    """
    if problem.row_weights is None:
        raise InputError("the separable solver takes row_weights and column_weights; use 'elementwise' for weights.")
    dtype = torch.promote_types(problem.matrix.dtype, torch.float32)
    found = separable_factors(problem, seed)
    status = "randomised" if found.iterations else "exact"
    return make_solution(
        problem, found.left.to(dtype), found.right.to(dtype), status=status, iterations=found.iterations
    )


def separable_factors(problem: WeightedLowRankProblem, seed: int) -> SeparableFactors:
    """Solve the problem, or for `weights` the one with their row sums times their column sums in their place.

    With D W C V = U S for the leading r right singular vectors V of D W C (Eckart-Young), D X C = U S V^T, so
    X = D^-1 U S V^T C^-1. Since D^-1 U S = W C V and V^T C^-1 = S^-1 U^T D W, the weights cancel as in the row solver:
    X = (W C V) S^-1 (U^T D W). Nothing is divided by a weight, and rows and columns of weight zero get the limit of a
    small weight. With a V that is only near the singular vectors, D X C = U U^T D W C is the best X with that U.

    Where D W C has a rank below r, the components beyond it are zero. S may span the weights' orders of magnitude and
    is divided by, hence float64.
    """
    row_weights, column_weights = _marginal_weights(problem)
    matrix = problem.matrix.double()
    row_roots, column_roots = square_roots(row_weights), square_roots(column_weights)
    weighted_matrix = row_roots[:, None] * matrix * column_roots

    right, iterations = leading_right_vectors(weighted_matrix, problem.rank, seed)
    left_vectors, values, rotation = torch.linalg.svd(weighted_matrix @ right.T, full_matrices=False)
    vanishing = values <= values[0] * max(matrix.shape) * torch.finfo(matrix.dtype).eps
    inverse_roots = torch.where(vanishing, 0.0, values.rsqrt())
    left = matrix @ (column_roots[:, None] * (right.T @ rotation.T) * inverse_roots)
    right = (inverse_roots[:, None] * left_vectors.T * row_roots) @ matrix
    return SeparableFactors(*symmetric_split(left, right), iterations)


def _marginal_weights(problem: WeightedLowRankProblem) -> tuple[Float64[Tensor, " d_out"], Float64[Tensor, " d_in"]]:
    """Row and column weights; the sums of M are its nearest separable matrix in Kullback-Leibler divergence."""
    if problem.weights is not None:
        return problem.weights.sum(dim=1, dtype=torch.float64), problem.weights.sum(dim=0, dtype=torch.float64)
    if problem.row_weights is None:
        raise ValueError("a problem has weights")
    if problem.column_weights is None:
        return problem.row_weights.double(), problem.row_weights.new_ones(problem.matrix.shape[1]).double()
    return problem.row_weights.double(), problem.column_weights.double()
