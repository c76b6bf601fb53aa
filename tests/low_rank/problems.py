"""Random problems of every form, and the slowest way to measure one's error."""

import torch
from torch import Tensor

from unlora.low_rank import WeightedLowRankProblem


def random_matrix(d_out: int, d_in: int, seed: int) -> Tensor:
    return torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_weights(*shape: int, seed: int, decades: float = 4) -> Tensor:
    """Evenly spread logarithms."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return 10 ** (decades * (torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.5))


def row_problem(d_out: int, d_in: int, rank: int, *, seed: int = 0, dtype=torch.float64) -> WeightedLowRankProblem:
    """Normal entries, row weights over four orders of magnitude."""
    weights = random_weights(d_out, seed=seed).to(dtype)
    return WeightedLowRankProblem(random_matrix(d_out, d_in, seed).to(dtype), rank, row_weights=weights)


def separable_problem(
    d_out: int, d_in: int, rank: int, *, seed: int = 0, dtype=torch.float64
) -> WeightedLowRankProblem:
    """Normal entries, row and column weights over four orders of magnitude each."""
    return WeightedLowRankProblem(
        random_matrix(d_out, d_in, seed).to(dtype),
        rank,
        row_weights=random_weights(d_out, seed=seed).to(dtype),
        column_weights=random_weights(d_in, seed=seed + 1).to(dtype),
    )


def elementwise_problem(
    d_out: int, d_in: int, rank: int, *, seed: int = 0, decades: float = 2, dtype=torch.float64
) -> WeightedLowRankProblem:
    """Normal entries, a weight of its own for each."""
    weights = random_weights(d_out, d_in, seed=seed, decades=decades).to(dtype)
    return WeightedLowRankProblem(random_matrix(d_out, d_in, seed).to(dtype), rank, weights=weights)


def dense_weights(problem: WeightedLowRankProblem) -> Tensor:
    """All of M, in float64."""
    if problem.weights is not None:
        return problem.weights.double()
    columns = torch.ones(problem.matrix.shape[1]) if problem.column_weights is None else problem.column_weights
    return torch.outer(problem.row_weights.double(), columns.double())


def weighted_error(problem: WeightedLowRankProblem, approximation: Tensor) -> float:
    errors = (problem.matrix.double() - approximation.double()).tolist()
    total = 0.0
    for weights, row in zip(dense_weights(problem).tolist(), errors, strict=True):
        total += sum(weight * entry**2 for weight, entry in zip(weights, row, strict=True))
    return total**0.5
