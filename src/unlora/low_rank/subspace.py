"""Leading right singular vectors: all of a small matrix's, a seeded sketch of a large one's."""

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.shapes import LoraA, Weight

EXACT_UP_TO = 128
"""Largest min(d_out, d_in) that gets a full SVD; above it a sketch is much faster and as good."""
OVERSAMPLING = 16
POWER_ITERATIONS = 8


def leading_right_vectors(matrix: Weight, rank: int, seed: int) -> tuple[LoraA, int]:
    """Return the leading right singular vectors, orthonormal rows (rank, d_in), and the power iterations they took.

    Args:
        matrix: any, (d_out, d_in).
        rank: 1 to min(d_out, d_in).
        seed: of the sketch; the global random state is neither read nor moved.
    """
    exact = min(matrix.shape) <= EXACT_UP_TO
    core = matrix if exact else _sketch(matrix, rank, seed)
    return torch.linalg.svd(core, full_matrices=False).Vh[:rank], 0 if exact else POWER_ITERATIONS


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
