import pytest
import torch
from torch import Tensor

from tests.low_rank.problems import row_problem, separable_problem, weighted_error
from unlora.errors import InputError
from unlora.low_rank import WeightedLowRankProblem, solve_row_weighted


def eckart_young_error(problem: WeightedLowRankProblem) -> float:
    """The smallest weighted error any matrix of that rank can have."""
    singular_values = torch.linalg.svdvals(problem.row_weights.double().sqrt()[:, None] * problem.matrix.double())
    return float(singular_values[problem.rank :].square().sum().sqrt())


def test_no_gradient_descent_does_better() -> None:
    problem = row_problem(6, 5, 2)
    errors = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        left = torch.randn(6, 2, generator=generator, dtype=torch.float64).requires_grad_()
        right = torch.randn(2, 5, generator=generator, dtype=torch.float64).requires_grad_()
        optimiser = torch.optim.LBFGS([left, right], max_iter=2000, tolerance_grad=1e-10, tolerance_change=1e-14)

        def loss(left: Tensor = left, right: Tensor = right) -> Tensor:
            return (problem.row_weights[:, None] * (problem.matrix - left @ right).square()).sum()

        def closure(left: Tensor = left, right: Tensor = right, optimiser=optimiser, loss=loss) -> Tensor:
            optimiser.zero_grad()
            value = loss()
            value.backward()
            return value

        optimiser.step(closure)
        errors.append(float(loss().detach().sqrt()))
    solution = solve_row_weighted(problem)
    assert solution.weighted_residual <= min(errors) * (1 + 1e-9)
    assert solution.weighted_residual == pytest.approx(min(errors), rel=1e-4)  # and one of them gets there


@pytest.mark.parametrize(("d_out", "d_in", "rank"), [(20, 12, 3), (12, 20, 12), (1, 5, 1), (200, 100, 8)])
def test_exact_solution_has_the_optimal_residual_and_reports_it(d_out: int, d_in: int, rank: int) -> None:
    problem = row_problem(d_out, d_in, rank)
    solution = solve_row_weighted(problem)
    achieved = weighted_error(problem, solution.left @ solution.right)
    assert (solution.status, solution.iterations) == ("exact", 0)
    assert achieved == pytest.approx(eckart_young_error(problem), rel=1e-9, abs=1e-9)
    assert solution.weighted_residual == pytest.approx(achieved, rel=1e-9, abs=1e-9)
    whole = weighted_error(problem, torch.zeros_like(problem.matrix))
    assert solution.relative_residual == pytest.approx(achieved / whole, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("d_out", "d_in", "rank"), [(576, 192, 8), (1536, 576, 16), (192, 576, 16), (256, 256, 4)])
@pytest.mark.parametrize(("decay", "above"), [(0.0, 5e-3), (0.5, 1e-3), (1.0, 1e-3)])
def test_randomised_residual_is_near_the_optimum(d_out: int, d_in: int, rank: int, decay: float, above: float) -> None:
    """Normal entries, the slowest decay there is, and singular values that fall as 1 / k^decay beside it."""
    problem = row_problem(d_out, d_in, rank, dtype=torch.float32)
    if decay:
        left, values, right = torch.linalg.svd(problem.matrix, full_matrices=False)
        falling = torch.arange(1, len(values) + 1) ** -decay
        matrix = (left * falling * values[0]) @ right
        problem = WeightedLowRankProblem(matrix, rank, row_weights=problem.row_weights)
    solution = solve_row_weighted(problem)
    assert solution.status == "randomised"
    assert solution.weighted_residual == pytest.approx(eckart_young_error(problem), rel=above)
    assert solution.left.dtype == torch.float32
    error = problem.matrix.double() - solution.left.double() @ solution.right.double()
    achieved = float((problem.row_weights.double().sqrt()[:, None] * error).norm())
    assert solution.weighted_residual == pytest.approx(achieved, rel=1e-6)  # a float32 norm is off by more


def test_constant_weights_give_the_truncated_svd() -> None:
    matrix = row_problem(20, 12, 3).matrix
    solution = solve_row_weighted(
        WeightedLowRankProblem(matrix, 3, row_weights=torch.full((20,), 0.3, dtype=torch.float64))
    )
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(solution.left @ solution.right, (left[:, :3] * values[:3]) @ right[:3])
    torch.testing.assert_close(solution.left.norm(dim=0).square(), values[:3])  # the symmetric split U S^1/2, S^1/2 V


@pytest.mark.parametrize(("d_out", "d_in"), [(20, 12), (150, 140)])
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_scale_of_the_weights_does_not_move_the_factors(d_out: int, d_in: int, scale: float) -> None:
    problem = row_problem(d_out, d_in, 3, dtype=torch.float32)
    scaled = WeightedLowRankProblem(problem.matrix, 3, row_weights=problem.row_weights * scale)
    expected, solution = solve_row_weighted(problem), solve_row_weighted(scaled)
    torch.testing.assert_close(solution.left, expected.left, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(solution.right, expected.right, rtol=1e-3, atol=1e-4)
    assert solution.relative_residual == pytest.approx(expected.relative_residual, rel=1e-4)
    assert solution.weighted_residual == pytest.approx(expected.weighted_residual * scale**0.5, rel=1e-4)


def test_factors_are_balanced_component_by_component() -> None:
    solution = solve_row_weighted(row_problem(20, 12, 4))
    torch.testing.assert_close(solution.left.norm(dim=0), solution.right.norm(dim=1))
    assert float(solution.left.norm()) == pytest.approx(float(solution.right.norm()))


def test_rows_of_weight_zero_get_the_limit_of_a_small_weight() -> None:
    problem = row_problem(20, 12, 3)
    with_zeros, with_small = problem.row_weights.clone(), problem.row_weights.clone()
    with_zeros[:5], with_small[:5] = 0.0, 1e-13
    zero = solve_row_weighted(WeightedLowRankProblem(problem.matrix, 3, row_weights=with_zeros))
    small = solve_row_weighted(WeightedLowRankProblem(problem.matrix, 3, row_weights=with_small))
    torch.testing.assert_close(zero.left @ zero.right, small.left @ small.right, rtol=1e-6, atol=1e-8)


def test_heavy_row_is_reproduced_best() -> None:
    problem = row_problem(20, 12, 1)
    weights = torch.ones(20, dtype=torch.float64)
    weights[7] = 1e8
    solution = solve_row_weighted(WeightedLowRankProblem(problem.matrix, 1, row_weights=weights))
    torch.testing.assert_close((solution.left @ solution.right)[7], problem.matrix[7], rtol=1e-5, atol=1e-5)


def test_low_rank_and_zero_matrices_are_reproduced() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(9, 2, generator=generator) @ torch.randn(2, 8, generator=generator)
    for exact in (matrix, torch.zeros(9, 8)):
        solution = solve_row_weighted(WeightedLowRankProblem(exact, 4, row_weights=torch.arange(9.0)))
        torch.testing.assert_close(solution.left @ solution.right, exact, rtol=1e-4, atol=1e-5)
        assert solution.relative_residual < 1e-5


def test_seed_decides_and_the_global_random_state_stays() -> None:
    problem = row_problem(150, 140, 4, dtype=torch.float32)
    before = torch.get_rng_state()
    first = solve_row_weighted(problem, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again = solve_row_weighted(problem, seed=1)
    other = solve_row_weighted(problem, seed=2)
    assert torch.equal(first.left, again.left)
    assert torch.equal(first.right, again.right)
    assert not torch.equal(first.left, other.left)


def test_bfloat16_matrix_is_solved_in_float32() -> None:
    problem = row_problem(20, 12, 3, dtype=torch.bfloat16)
    in_float32 = WeightedLowRankProblem(problem.matrix.float(), 3, row_weights=problem.row_weights.float())
    solution, expected = solve_row_weighted(problem), solve_row_weighted(in_float32)
    assert torch.equal(solution.left, expected.left)
    assert torch.equal(solution.right, expected.right)


def test_other_weights_are_refused() -> None:
    problem = separable_problem(6, 5, 2)
    with pytest.raises(InputError, match="row solver takes row_weights alone"):
        solve_row_weighted(problem)
    with pytest.raises(InputError, match="row solver takes row_weights alone"):
        solve_row_weighted(WeightedLowRankProblem(problem.matrix, 2, weights=torch.ones(6, 5)))


@pytest.mark.parametrize("decay", [0.1, 1.0, 3.0])
def test_residual_that_is_a_difference_of_norms_is_the_residual(decay: float) -> None:
    """Where the solution is most of the matrix the difference would say nothing, and the residual is formed."""
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(300, 200, generator=generator), full_matrices=False)
    matrix = (left * torch.arange(1, 201) ** -decay) @ right
    problem = WeightedLowRankProblem(matrix, 8, row_weights=torch.rand(300, generator=generator) + 0.1)
    solution = solve_row_weighted(problem)
    errors = matrix.double() - solution.left.double() @ solution.right.double()
    achieved = float((problem.row_weights.double().sqrt()[:, None] * errors).norm())
    assert solution.weighted_residual == pytest.approx(achieved, rel=1e-5)
