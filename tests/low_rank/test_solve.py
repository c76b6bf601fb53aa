import inspect

import pytest
import torch

from tests.low_rank.problems import elementwise_problem, row_problem, separable_problem
from unlora.errors import InputError
from unlora.low_rank import (
    ElementwiseSettings,
    LowRankSolution,
    solve,
    solve_elementwise,
    solve_row_weighted,
    solve_separable,
)


def same(solution: LowRankSolution, expected: LowRankSolution) -> bool:
    return torch.equal(solution.left, expected.left) and torch.equal(solution.right, expected.right)


def test_weights_choose_the_solver_and_the_seed_is_passed_on() -> None:
    for make, solver in (
        (row_problem, solve_row_weighted),
        (separable_problem, solve_separable),
        (elementwise_problem, solve_elementwise),
    ):
        problem = make(150, 140, 4)
        assert same(solve(problem, seed=3), solver(problem, seed=3))
        assert not same(solve(problem, seed=3), solver(problem, seed=4))


@pytest.mark.parametrize(
    ("make", "methods"),
    [(row_problem, ["row", "separable", "elementwise"]), (separable_problem, ["separable", "elementwise"])],
)
def test_every_solver_that_takes_the_weights_reaches_the_same_residual(make, methods: list[str]) -> None:
    problem = make(30, 20, 3)
    residuals = [solve(problem, method).weighted_residual for method in methods]
    assert residuals == pytest.approx([residuals[0]] * len(methods), rel=1e-6)


def test_settings_reach_the_elementwise_solver() -> None:
    assert solve(elementwise_problem(30, 20, 3), settings=ElementwiseSettings(max_iterations=2)).iterations == 2


def test_solver_that_cannot_take_the_weights_is_refused() -> None:
    with pytest.raises(InputError, match="row solver"):
        solve(separable_problem(6, 5, 2), "row")
    with pytest.raises(InputError, match="separable solver"):
        solve(elementwise_problem(6, 5, 2), "separable")
    unchecked = inspect.unwrap(solve)  # without the checks of types that only the test run has
    with pytest.raises(InputError, match=r"no solver 'seperable'\. Did you mean 'separable'"):
        unchecked(separable_problem(6, 5, 2), "seperable")
