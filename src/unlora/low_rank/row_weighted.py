"""Weights per row: closed form by one singular value decomposition (what FILA and VILA solve)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.errors import InputError
from unlora.low_rank.problem import WeightedLowRankProblem
from unlora.low_rank.solution import LowRankSolution, make_solution
from unlora.low_rank.subspace import leading_right_vectors

MOST_TAKEN = 0.75
"""Of the squared norm: up to there a difference of the two loses at most a factor of four of float32's precision."""


@torch.no_grad()
def solve_row_weighted(problem: WeightedLowRankProblem, *, seed: int = 0) -> LowRankSolution:
    """Solve argmin over rank-r X of ||D (W - X)||_F with D = diag(sqrt(w)).

    With V the leading r right singular vectors of D W (Eckart-Young), the published form is X = D^-1 (D W V) V^T.
    The D cancel: X = W V V^T. Written so, nothing is divided by a weight, no floor is needed, and rows of weight zero
    get the limit of a small weight.
    Source: Cha et al. 2024, LoKU (arXiv 2408.06621); Hsu et al. 2022 (arXiv 2207.00112).

    Args:
        problem: W (d_out, d_in), row weights (d_out,), rank.
        seed: of the sketch; the global random state is neither read nor moved.

    Returns:
        Factors in float32 (float64 for a float64 matrix) on the matrix's device.

    Raises:
        InputError: the problem has column weights or weights of entries.
    """
    if problem.row_weights is None or problem.column_weights is not None:
        raise InputError("the row solver takes row_weights alone; use 'separable' or 'elementwise' for other weights.")
    matrix = problem.matrix.to(torch.promote_types(problem.matrix.dtype, torch.float32))
    right, iterations = leading_right_vectors(matrix, problem.rank, seed, square_roots(problem.row_weights).to(matrix))
    left = matrix @ right.T
    whole, taken = problem.weighted_norm(matrix), problem.weighted_norm(left)
    balance = torch.linalg.vector_norm(left, dim=0).sqrt().clamp_min(torch.finfo(matrix.dtype).tiny)
    left, right = left / balance, right * balance[:, None]
    status = "randomised" if iterations else "exact"
    if taken**2 >= MOST_TAKEN * whole**2:
        return make_solution(problem, left, right, status=status, iterations=iterations)
    # V is orthonormal, so of ||D W||^2 the solution takes ||D W V||^2, and W - X need not be formed.
    residual = math.sqrt(whole**2 - taken**2)
    return LowRankSolution(left, right, residual, residual / whole, status, iterations)


def square_roots(weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the roots of the weights over their mean, in float64: no under- or overflow in float32 afterwards."""
    return (weights.double() / weights.double().mean()).sqrt()
