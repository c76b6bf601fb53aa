"""The front door of the solvers."""

from typing import Literal

from unlora.errors import InputError, nearest
from unlora.low_rank.elementwise import ElementwiseSettings, solve_elementwise
from unlora.low_rank.problem import WeightedLowRankProblem
from unlora.low_rank.row_weighted import solve_row_weighted
from unlora.low_rank.separable import solve_separable
from unlora.low_rank.solution import LowRankSolution

SolverName = Literal["row", "separable", "elementwise"]


def solve(
    problem: WeightedLowRankProblem,
    method: SolverName | None = None,
    *,
    seed: int = 0,
    settings: ElementwiseSettings | None = None,
) -> LowRankSolution:
    """Solve `problem`, by default with the solver that fits its weights.

    - "row": row_weights alone; closed form.
    - "separable": row_weights, with or without column_weights; closed form.
    - "elementwise": any weights; iterative. On weights that a closed form takes it reaches that form's residual.

    Args:
        problem: matrix, weights and rank.
        method: one of the three; None takes the first of them that fits.
        seed: of randomised solvers; the same seed gives the same solution.
        settings: of the elementwise solver; None takes its defaults.

    Raises:
        InputError: no such method, or one that cannot take the weights.
    """
    if method is None:
        method = (
            "elementwise" if problem.weights is not None else "row" if problem.column_weights is None else "separable"
        )
    if method == "row":
        return solve_row_weighted(problem, seed=seed)
    if method == "separable":
        return solve_separable(problem, seed=seed)
    if method == "elementwise":
        return solve_elementwise(problem, seed=seed, settings=settings)
    raise InputError(f"method: no solver '{method}'.{nearest(method, ['row', 'separable', 'elementwise'])}")
