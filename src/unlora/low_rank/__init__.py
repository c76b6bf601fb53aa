"""Weighted low-rank approximation of a weight matrix: weights per row, per row and column, or per entry."""

from unlora.low_rank.contrast import ContrastDirections, contrast_directions
from unlora.low_rank.elementwise import ElementwiseSettings, solve_elementwise
from unlora.low_rank.minor import minor_directions
from unlora.low_rank.problem import WeightedLowRankProblem
from unlora.low_rank.row_weighted import solve_row_weighted
from unlora.low_rank.separable import solve_separable
from unlora.low_rank.solution import LowRankSolution
from unlora.low_rank.solve import SolverName, solve

__all__ = [
    "ContrastDirections",
    "ElementwiseSettings",
    "LowRankSolution",
    "SolverName",
    "WeightedLowRankProblem",
    "contrast_directions",
    "minor_directions",
    "solve",
    "solve_elementwise",
    "solve_row_weighted",
    "solve_separable",
]
