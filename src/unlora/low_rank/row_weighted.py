"""Weights per row: closed form by one singular value decomposition (what FILA and VILA solve)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.low_rank.problem import WeightedLowRankProblem
from unlora.low_rank.solution import LowRankSolution
from unlora.shapes import Weight

EXACT_UP_TO = 128
"""Largest min(d_out, d_in) that gets a full SVD; above it a sketch is much faster and as good."""
OVERSAMPLING = 16
POWER_ITERATIONS = 8


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
    """
    matrix = problem.matrix.to(torch.promote_types(problem.matrix.dtype, torch.float32))
    proportions = problem.row_weights.double() / problem.row_weights.double().mean()  # no under- or overflow in float32
    weighted_matrix = proportions.sqrt().to(matrix)[:, None] * matrix

    exact = min(matrix.shape) <= EXACT_UP_TO
    core = weighted_matrix if exact else _sketch(weighted_matrix, problem.rank, seed)
    right = torch.linalg.svd(core, full_matrices=False).Vh[: problem.rank]
    left = matrix @ right.T
    balance = torch.linalg.vector_norm(left, dim=0).sqrt().clamp_min(torch.finfo(matrix.dtype).tiny)
    left, right = left / balance, right * balance[:, None]

    residual = _weighted_norm(matrix - left @ right, problem.row_weights)
    whole = _weighted_norm(matrix, problem.row_weights)
    return LowRankSolution(
        left=left,
        right=right,
        weighted_residual=residual,
        relative_residual=residual / whole if whole else 0.0,
        status="exact" if exact else "randomised",
        iterations=0 if exact else POWER_ITERATIONS,
    )


def _weighted_norm(matrix: Weight, row_weights: Float[Tensor, " d_out"]) -> float:
    """Return sqrt(sum_ij w_i E_ij^2). `torch.linalg.norm` in float32 drifts by 1e-4 on millions of entries."""
    return math.sqrt(float(row_weights.double() @ matrix.square().sum(dim=1).double()))


def _sketch(matrix: Weight, rank: int, seed: int) -> Float[Tensor, "sketch d_in"]:
    """Small matrix with the same leading right singular vectors: subspace iteration (Halko et al. 2011, algorithm 4.4).

    Not `torch.svd_lowrank`: that draws from the global random state, one a device, so results would differ by device.
    """
    size = min(rank + OVERSAMPLING, *matrix.shape)
    start = torch.randn(matrix.shape[1], size, generator=torch.Generator().manual_seed(seed), dtype=matrix.dtype)
    basis = torch.linalg.qr(matrix @ start.to(matrix.device)).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    return basis.T @ matrix
