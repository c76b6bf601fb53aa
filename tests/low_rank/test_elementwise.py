"""The elementwise solver against closed forms, a general optimiser from many starts, and its own symmetries."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from tests.low_rank.problems import (
    dense_weights,
    elementwise_problem,
    random_matrix,
    row_problem,
    separable_problem,
    weighted_error,
)
from unlora.errors import InputError
from unlora.low_rank import (
    ElementwiseSettings,
    WeightedLowRankProblem,
    solve_elementwise,
    solve_row_weighted,
    solve_separable,
)
from unlora.low_rank.elementwise import descend, lowest_point
from unlora.low_rank.passes import Entries, FactorPair

TIGHT = ElementwiseSettings(tolerance=1e-13, max_iterations=3000)


def best_of_many_starts(problem: WeightedLowRankProblem, starts: int = 50) -> float:
    """Smallest weighted error that L-BFGS finds on all entries of both factors."""
    (d_out, d_in), rank = problem.matrix.shape, problem.rank
    matrix, weights = problem.matrix.numpy(), dense_weights(problem).numpy()

    def value_and_gradient(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        left, right = numbers[: d_out * rank].reshape(d_out, rank), numbers[d_out * rank :].reshape(rank, d_in)
        errors = matrix - left @ right
        gradients = -2 * (weights * errors) @ right.T, -2 * left.T @ (weights * errors)
        return float((weights * errors**2).sum()), np.concatenate([part.ravel() for part in gradients])

    errors = []
    for seed in range(starts):
        start = np.random.default_rng(seed).normal(size=(d_out + d_in) * rank)
        found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000})
        errors.append(found.fun**0.5)
    return min(errors)


def holed(problem: WeightedLowRankProblem, share: float) -> WeightedLowRankProblem:
    """The same problem with about that share of the weights at zero; the last stays."""
    generator = torch.Generator().manual_seed(7)
    kept = torch.rand(*problem.matrix.shape, generator=generator, dtype=torch.float64) >= share
    kept[-1, -1] = True
    return WeightedLowRankProblem(problem.matrix, problem.rank, weights=problem.weights * kept)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("decades", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_no_optimiser_from_fifty_starts_does_better(rank: int, decades: float, seed: int) -> None:
    """One start is not enough for this: of such matrices it misses the best minimum of one in ten (weights
    uniform in [0, 1], rank 1) to more than one in two (weights over four orders of magnitude, rank 2).
    """
    problem = elementwise_problem(6, 5, rank, seed=seed, decades=decades)
    restarts = ElementwiseSettings(tolerance=1e-10, max_iterations=1000, restarts=20)
    best = best_of_many_starts(problem)
    assert solve_elementwise(problem, settings=restarts).weighted_residual <= best * (1 + 1e-6)


def test_restarts_find_what_one_start_misses_and_never_lose_it() -> None:
    residuals = []
    for seed in range(8):
        problem = elementwise_problem(6, 5, 2, seed=seed, decades=4)
        one = solve_elementwise(problem)
        many = solve_elementwise(problem, settings=ElementwiseSettings(restarts=5))
        residuals.append((one.weighted_residual, many.weighted_residual))
    assert all(many <= one * (1 + 1e-12) for one, many in residuals)
    assert any(many < 0.9 * one for one, many in residuals)


@pytest.mark.parametrize(
    ("make", "closed_form"), [(row_problem, solve_row_weighted), (separable_problem, solve_separable)]
)
def test_weights_of_a_closed_form_reach_its_residual_from_any_start(make, closed_form) -> None:
    problem = make(30, 20, 3)
    expected = closed_form(problem).weighted_residual
    as_entries = WeightedLowRankProblem(problem.matrix, 3, weights=dense_weights(problem))
    for given_as in (problem, as_entries):
        assert solve_elementwise(given_as).weighted_residual == pytest.approx(expected, rel=1e-6)
    entries = Entries(as_entries)
    for seed in range(3):  # such weights have no local minimum but the global one
        start = FactorPair(random_matrix(30, 3, seed), random_matrix(3, 20, seed + 10))
        run = descend(entries, start, TIGHT)
        assert run.status == "converged"
        residual = weighted_error(problem, run.factors.left @ run.factors.right)
        assert residual == pytest.approx(expected, rel=1e-6)
        assert (run.objectives[-1] / entries.scale) ** 0.5 == pytest.approx(residual, rel=1e-9)


@pytest.mark.parametrize("observed", [0.5, 0.8])
def test_hidden_entries_of_a_low_rank_matrix_are_found(observed: float) -> None:
    matrix = random_matrix(40, 3, 0) @ random_matrix(3, 30, 1)
    problem = holed(WeightedLowRankProblem(matrix, 3, weights=torch.ones(40, 30, dtype=torch.float64)), 1 - observed)
    solution = solve_elementwise(problem, settings=TIGHT)
    assert solution.status == "converged"
    torch.testing.assert_close(solution.left @ solution.right, matrix, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@example(shape=(5, 6), seed=6, decades=2, zeros=0.8, empty_lines=True, rank=2)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 10_000),
    decades=st.sampled_from([0, 2, 8]),
    zeros=st.sampled_from([0.0, 0.3, 0.8]),
    empty_lines=st.booleans(),
    rank=st.integers(1, 9),
)
def test_residual_never_rises_and_is_what_it_says(shape, seed, decades, zeros, empty_lines, rank) -> None:
    rank = min(rank, *shape)
    problem = elementwise_problem(*shape, rank, seed=seed, decades=decades)
    weights = holed(problem, zeros).weights
    if empty_lines and min(shape) > 1:
        weights[0], weights[:, 0] = 0, 0
    problem = WeightedLowRankProblem(problem.matrix, rank, weights=weights)
    solution = solve_elementwise(problem, seed=seed, settings=ElementwiseSettings(max_iterations=50))
    whole = weighted_error(problem, torch.zeros(shape))
    start = WeightedLowRankProblem(
        problem.matrix, rank, row_weights=weights.sum(dim=1), column_weights=weights.sum(dim=0)
    )
    separable = solve_separable(start, seed=seed)
    assert list(solution.trace) == sorted(solution.trace, reverse=True)
    assert len(solution.trace) == solution.iterations + 1 <= 51
    assert solution.trace[0] == pytest.approx(
        weighted_error(problem, separable.left @ separable.right), rel=1e-9, abs=1e-9 * whole
    )
    achieved = weighted_error(problem, solution.left @ solution.right)
    # Where most weights are 0 the factors may grow without end in directions that nothing weighs; what they leave of
    # an entry that counts is then rounded at their size, and the trace was computed from other factors of one product.
    sizes = float(solution.left.norm() * solution.right.norm() * weights.max().sqrt())
    rounded = torch.finfo(solution.left.dtype).eps * sizes
    assert solution.trace[-1] == pytest.approx(achieved, rel=1e-6, abs=1e-9 * whole + rounded)
    assert solution.weighted_residual == pytest.approx(achieved, rel=1e-9, abs=1e-12 * whole)
    assert solution.relative_residual == pytest.approx(achieved / whole if whole else 0, rel=1e-9, abs=1e-12)
    assert solution.left.isfinite().all()
    assert solution.right.isfinite().all()


def test_result_is_stationary_and_balanced() -> None:
    problem = elementwise_problem(30, 20, 3)
    solution = solve_elementwise(problem, settings=TIGHT)
    left, right = solution.left.requires_grad_(), solution.right.requires_grad_()
    (problem.weights * (problem.matrix - left @ right).square()).sum().backward()
    assert float(left.grad.norm() + right.grad.norm()) < 1e-5 * solution.weighted_residual**2
    values = torch.linalg.svdvals(left.detach() @ right.detach())[:3]
    torch.testing.assert_close(left.detach().T @ left.detach(), values.diag())
    torch.testing.assert_close(right.detach() @ right.detach().T, values.diag())


def test_rows_and_columns_of_weight_zero_keep_the_separable_start() -> None:
    """And so get the limit of a small weight as far as the start does."""
    problem = elementwise_problem(20, 12, 3)
    weights = problem.weights.clone()
    weights[:4] = 0
    weights[:, 10:] = 0
    solution = solve_elementwise(WeightedLowRankProblem(problem.matrix, 3, weights=weights))
    inner = solve_elementwise(WeightedLowRankProblem(problem.matrix[4:, :10], 3, weights=weights[4:, :10]))
    product = solution.left @ solution.right
    torch.testing.assert_close(product[4:, :10], inner.left @ inner.right, rtol=1e-4, atol=1e-4)
    assert product.isfinite().all()
    assert 0.1 < product[:4].norm() < problem.matrix.norm()


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_scale_of_the_weights_does_not_move_the_factors(scale: float) -> None:
    problem = elementwise_problem(20, 12, 3, dtype=torch.float32)
    scaled = WeightedLowRankProblem(problem.matrix, 3, weights=problem.weights * scale)
    expected, solution = solve_elementwise(problem), solve_elementwise(scaled)
    torch.testing.assert_close(solution.left, expected.left, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(solution.right, expected.right, rtol=1e-3, atol=1e-4)
    assert solution.relative_residual == pytest.approx(expected.relative_residual, rel=1e-5)
    assert solution.weighted_residual == pytest.approx(expected.weighted_residual * scale**0.5, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scale_of_the_matrix_scales_the_product(scale: float) -> None:
    problem = elementwise_problem(20, 12, 3)
    scaled = WeightedLowRankProblem(problem.matrix * scale, 3, weights=problem.weights)
    expected, solution = solve_elementwise(problem), solve_elementwise(scaled)
    torch.testing.assert_close(solution.left @ solution.right / scale, expected.left @ expected.right)


@pytest.mark.parametrize("seed", range(3))
def test_transposed_problem_has_the_transposed_solution(seed: int) -> None:
    problem = elementwise_problem(20, 12, 3, seed=seed)
    transposed = WeightedLowRankProblem(problem.matrix.T, 3, weights=problem.weights.T)
    solution, other = solve_elementwise(problem), solve_elementwise(transposed)
    assert other.weighted_residual == pytest.approx(solution.weighted_residual, rel=1e-8)
    torch.testing.assert_close((other.left @ other.right).T, solution.left @ solution.right, rtol=1e-5, atol=1e-6)


def test_seed_decides_and_the_global_random_state_stays() -> None:
    problem = elementwise_problem(6, 5, 2, decades=4)
    restarts = ElementwiseSettings(restarts=3)
    before = torch.get_rng_state()
    first = solve_elementwise(problem, seed=1, settings=restarts)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again = solve_elementwise(problem, seed=1, settings=restarts)
    assert torch.equal(first.left, again.left)
    assert torch.equal(first.right, again.right)
    assert first.trace == again.trace


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_large_layer_beats_the_separable_start_in_every_precision(dtype: torch.dtype) -> None:
    problem = elementwise_problem(200, 150, 8, dtype=dtype)
    start = WeightedLowRankProblem(
        problem.matrix, 8, row_weights=problem.weights.sum(dim=1), column_weights=problem.weights.sum(dim=0)
    )
    separable, solution = solve_separable(start), solve_elementwise(problem)
    assert solution.status == "converged"
    assert solution.left.dtype == solution.right.dtype == torch.promote_types(dtype, torch.float32)
    matrix = problem.matrix.to(solution.left.dtype)
    assert solution.weighted_residual < 0.98 * problem.weighted_norm(matrix - separable.left @ separable.right)
    assert solution.weighted_residual == pytest.approx(solution.trace[-1], rel=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_device_of_the_matrix_is_kept() -> None:
    problem = elementwise_problem(40, 30, 3, dtype=torch.float32)
    on_device = WeightedLowRankProblem(problem.matrix.cuda(), 3, weights=problem.weights.cuda())
    restarts = ElementwiseSettings(restarts=1)
    expected = solve_elementwise(problem, settings=restarts)
    solution = solve_elementwise(on_device, settings=restarts)
    assert solution.left.is_cuda
    assert solution.right.is_cuda
    assert solution.weighted_residual == pytest.approx(expected.weighted_residual, rel=1e-3)


def test_iterations_end_where_they_are_told_to() -> None:
    problem = elementwise_problem(60, 50, 5)
    short = solve_elementwise(problem, settings=ElementwiseSettings(max_iterations=3))
    assert (short.status, short.iterations) == ("max_iterations", 3)
    usual, tight = solve_elementwise(problem), solve_elementwise(problem, settings=TIGHT)
    assert (usual.status, tight.status) == ("converged", "converged")
    assert usual.trace[:4] == short.trace
    assert usual.weighted_residual == pytest.approx(tight.weighted_residual, rel=1e-5)
    assert usual.iterations < tight.iterations


@pytest.mark.parametrize(
    ("coefficients", "expected"),
    [
        ((-2.0, 1.0, 0.0, 0.0), 1.0),  # a parabola
        ((0.0, 0.0, 0.0, 1.0), 0.0),
        ((0.0, -2.0, 0.0, 1.0), 1.0),  # two equal minima at -1 and 1: either
        ((0.5, -2.0, 0.0, 1.0), -1.0575),  # the left one is lower
        ((-1e-8, 1.0, 0.0, 1e-30), 5e-9),  # roots far apart
    ],
)
def test_lowest_point_of_a_polynomial(coefficients: tuple[float, float, float, float], expected: float) -> None:
    found = lowest_point(*coefficients)
    if coefficients == (0.0, -2.0, 0.0, 1.0):
        found = abs(found)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"tolerance": 0.0}, "tolerance: must lie between 0 and 1"),
        ({"max_iterations": 0}, "max_iterations: must be at least 1"),
        ({"restarts": -1}, "restarts: must not be negative"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ElementwiseSettings(**setting)
