"""The front door of the solvers."""

from unlora.low_rank.problem import WeightedLowRankProblem
from unlora.low_rank.row_weighted import solve_row_weighted
from unlora.low_rank.solution import LowRankSolution


def solve(problem: WeightedLowRankProblem, *, seed: int = 0) -> LowRankSolution:
    """Solve `problem` with the solver that fits its weights; today weights are per row.

    Args:
        problem: matrix, weights and rank.
        seed: of randomised solvers; the same seed gives the same solution.
    """
    return solve_row_weighted(problem, seed=seed)
