"""Leading right singular vectors: all of a small matrix's, a seeded sketch of a large one's."""

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.shapes import LoraA, Weight

EXACT_UP_TO = 128
"""Largest min(d_out, d_in) that gets a full SVD; above it a sketch is much faster and as good."""
OVERSAMPLING = 16
POWER_ITERATIONS = 2
"""With the spare vectors, within 0.1 % of the smallest error on every layer of SmolLM2 that was tried; eight are within
a millionth, at three times the price (docs/performance.md)."""


def leading_right_vectors(
    matrix: Weight, rank: int, seed: int, row_roots: Float[Tensor, " d_out"] | None = None
) -> tuple[LoraA, int]:
    """Return the leading right singular vectors of D W, orthonormal rows (rank, d_in), and the power iterations.

    Args:
        matrix: W, any (d_out, d_in).
        rank: 1 to min(d_out, d_in).
        seed: of the sketch; the global random state is neither read nor moved.
        row_roots: the diagonal of D; None is the identity.
    """
    exact = min(matrix.shape) <= EXACT_UP_TO
    if not exact:
        core = _sketch(matrix, rank, seed, row_roots)
    else:
        core = matrix if row_roots is None else row_roots[:, None] * matrix
    return torch.linalg.svd(core, full_matrices=False).Vh[:rank], 0 if exact else POWER_ITERATIONS


def _sketch(
    matrix: Weight, rank: int, seed: int, row_roots: Float[Tensor, " d_out"] | None
) -> Float[Tensor, "sketch d_in"]:
    """Small matrix with the same leading right singular vectors: subspace iteration (Halko et al. 2011, algorithm 4.4).

    D W is never formed. Vectors lie in rows: BLAS multiplies a few rows by a large matrix five times as fast as a few
    columns. Not `torch.svd_lowrank`: that draws from the global random state, one a device, so results would differ by
    device.
    """

    def rescaled(rows: Float[Tensor, "sketch d_out"]) -> Float[Tensor, "sketch d_out"]:
        return rows if row_roots is None else rows * row_roots

    size = min(rank + OVERSAMPLING, *matrix.shape)
    start = torch.randn(size, matrix.shape[1], generator=torch.Generator().manual_seed(seed), dtype=matrix.dtype)
    basis = _orthonormal(rescaled(start.to(matrix.device) @ matrix.T))
    for _ in range(POWER_ITERATIONS):
        pulled = _orthonormal(rescaled(basis) @ matrix)
        basis = _orthonormal(rescaled(pulled @ matrix.T))
    return rescaled(basis) @ matrix


def _orthonormal(rows: Float[Tensor, "sketch d"]) -> Float[Tensor, "sketch d"]:
    return torch.linalg.qr(rows.T).Q.T
