import pytest
import torch

from tests.low_rank.problems import dense_weights, elementwise_problem, row_problem, separable_problem, weighted_error
from unlora.errors import InputError
from unlora.low_rank import WeightedLowRankProblem, solve_row_weighted, solve_separable


def eckart_young_error(problem: WeightedLowRankProblem) -> float:
    """The smallest weighted error any matrix of that rank can have."""
    singular_values = torch.linalg.svdvals(dense_weights(problem).sqrt() * problem.matrix.double())
    return float(singular_values[problem.rank :].square().sum().sqrt())


@pytest.mark.parametrize(("d_out", "d_in", "rank"), [(20, 12, 3), (12, 20, 12), (1, 5, 1), (200, 100, 8)])
def test_exact_solution_has_the_optimal_residual_and_reports_it(d_out: int, d_in: int, rank: int) -> None:
    problem = separable_problem(d_out, d_in, rank)
    solution = solve_separable(problem)
    achieved = weighted_error(problem, solution.left @ solution.right)
    whole = weighted_error(problem, torch.zeros_like(problem.matrix))
    assert (solution.status, solution.iterations, solution.trace) == ("exact", 0, ())
    assert achieved == pytest.approx(eckart_young_error(problem), rel=1e-9, abs=1e-9 * whole)
    assert solution.weighted_residual == pytest.approx(achieved, rel=1e-9, abs=1e-9 * whole)
    assert solution.relative_residual == pytest.approx(achieved / whole, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("d_out", "d_in", "rank"), [(576, 192, 8), (192, 576, 16), (256, 256, 4)])
def test_randomised_residual_is_within_a_thousandth_of_the_optimum(d_out: int, d_in: int, rank: int) -> None:
    problem = separable_problem(d_out, d_in, rank, dtype=torch.float32)
    solution = solve_separable(problem)
    assert solution.status == "randomised"
    assert solution.left.dtype == solution.right.dtype == torch.float32
    assert solution.weighted_residual == pytest.approx(eckart_young_error(problem), rel=1e-3)


@pytest.mark.parametrize("column_weights", [None, torch.full((12,), 0.2, dtype=torch.float64)])
def test_constant_column_weights_give_the_row_solution(column_weights) -> None:
    problem = row_problem(20, 12, 3)
    columns = WeightedLowRankProblem(problem.matrix, 3, row_weights=problem.row_weights, column_weights=column_weights)
    solution, expected = solve_separable(columns), solve_row_weighted(problem)
    torch.testing.assert_close(solution.left @ solution.right, expected.left @ expected.right)


def test_factors_are_the_symmetric_split() -> None:
    solution = solve_separable(separable_problem(20, 12, 4))
    values = torch.linalg.svdvals(solution.left @ solution.right)[:4]
    torch.testing.assert_close(solution.left.T @ solution.left, values.diag())
    torch.testing.assert_close(solution.right @ solution.right.T, values.diag())


def test_rows_and_columns_of_weight_zero_get_the_limit_of_a_small_weight() -> None:
    problem = separable_problem(20, 12, 3)
    solutions = []
    for small in (0.0, 1e-13):
        rows, columns = problem.row_weights.clone(), problem.column_weights.clone()
        rows[:5], columns[8:] = small, small
        found = solve_separable(WeightedLowRankProblem(problem.matrix, 3, row_weights=rows, column_weights=columns))
        solutions.append(found.left @ found.right)
    torch.testing.assert_close(*solutions, rtol=1e-6, atol=1e-8)
    assert solutions[0][:5].norm() > 0.1


def test_fewer_weighted_rows_than_the_rank_leave_the_other_components_zero() -> None:
    rows = torch.zeros(9)
    rows[3:5] = 1
    matrix = separable_problem(9, 8, 4, dtype=torch.float32).matrix
    solution = solve_separable(WeightedLowRankProblem(matrix, 4, row_weights=rows, column_weights=torch.arange(8.0)))
    torch.testing.assert_close((solution.left @ solution.right)[3:5, 1:], matrix[3:5, 1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(solution.left[:, 2:], torch.zeros(9, 2), rtol=0, atol=1e-5)
    zero = solve_separable(WeightedLowRankProblem(0 * matrix, 4, row_weights=rows))
    assert (zero.left.norm(), zero.right.norm(), zero.relative_residual) == (0, 0, 0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_of_the_weights_does_not_move_the_factors(scale: float) -> None:
    problem = separable_problem(20, 12, 3)
    scaled = WeightedLowRankProblem(
        problem.matrix, 3, row_weights=problem.row_weights * scale, column_weights=problem.column_weights / scale**2
    )
    expected, solution = solve_separable(problem), solve_separable(scaled)
    torch.testing.assert_close(solution.left @ solution.right, expected.left @ expected.right)
    assert solution.relative_residual == pytest.approx(expected.relative_residual)
    assert solution.weighted_residual == pytest.approx(expected.weighted_residual * scale**-0.5)


def test_transposed_problem_has_the_transposed_solution() -> None:
    problem = separable_problem(20, 12, 3)
    transposed = WeightedLowRankProblem(
        problem.matrix.T, 3, row_weights=problem.column_weights, column_weights=problem.row_weights
    )
    solution, other = solve_separable(problem), solve_separable(transposed)
    torch.testing.assert_close((other.left @ other.right).T, solution.left @ solution.right)


def test_seed_decides_and_the_global_random_state_stays() -> None:
    problem = separable_problem(150, 140, 4, dtype=torch.float32)
    before = torch.get_rng_state()
    first = solve_separable(problem, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again, other = solve_separable(problem, seed=1), solve_separable(problem, seed=2)
    assert torch.equal(first.left, again.left)
    assert not torch.equal(first.left, other.left)


def test_weights_of_entries_are_refused() -> None:
    with pytest.raises(InputError, match="use 'elementwise'"):
        solve_separable(elementwise_problem(6, 5, 2))
