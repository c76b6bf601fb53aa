"""Weighted low-rank approximation of a weight matrix. Torch only."""

from unlora.low_rank.problem import WeightedLowRankProblem
from unlora.low_rank.row_weighted import solve_row_weighted
from unlora.low_rank.solution import LowRankSolution
from unlora.low_rank.solve import solve

__all__ = ["LowRankSolution", "WeightedLowRankProblem", "solve", "solve_row_weighted"]
