"""The passes over all entries, against automatic differentiation and one least-squares problem a row."""

import pytest
import torch

from tests.low_rank.problems import dense_weights, elementwise_problem, separable_problem
from unlora.low_rank import WeightedLowRankProblem, problem
from unlora.low_rank.passes import Entries, FactorPair


@pytest.fixture(params=["one chunk", "many chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "many chunks":
        monkeypatch.setattr(problem, "CHUNK_ENTRIES", 1)
        monkeypatch.setattr(problem, "CHUNK_ROWS", 3)
        monkeypatch.setattr("unlora.low_rank.passes.CHUNK_ENTRIES", 1)
    return request.param


def random_factors(d_out: int, d_in: int, rank: int, seed: int) -> FactorPair:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(d_out, rank, generator=generator, dtype=torch.float64)
    return FactorPair(left, torch.randn(rank, d_in, generator=generator, dtype=torch.float64))


def objective(made: WeightedLowRankProblem, at: FactorPair) -> torch.Tensor:
    weights = dense_weights(made)
    return (weights / weights.mean() * (made.matrix - at.left @ at.right).square()).sum()


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("make", [elementwise_problem, separable_problem])
def test_force_is_minus_half_the_gradient(make) -> None:
    made = make(8, 5, 3)
    left, right = (factor.requires_grad_() for factor in random_factors(8, 5, 3, seed=1))
    value = objective(made, FactorPair(left, right))
    value.backward()
    descent = Entries(made).descent(FactorPair(left.detach(), right.detach()))
    assert descent.objective == pytest.approx(value.item(), rel=1e-12)
    torch.testing.assert_close(descent.force.left, -left.grad / 2)
    torch.testing.assert_close(descent.force.right, -right.grad / 2)


@pytest.mark.usefixtures("chunks")
def test_objective_along_a_line_is_the_polynomial() -> None:
    made, at, step = elementwise_problem(8, 5, 3), random_factors(8, 5, 3, seed=1), random_factors(8, 5, 3, seed=2)
    first, second, third, fourth = Entries(made).along(at, step)
    for t in (-1.5, 0.1, 1.0, 3.0):
        change = first * t + second * t**2 + third * t**3 + fourth * t**4
        expected = objective(made, at.plus(step, t)) - objective(made, at)
        assert change == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.usefixtures("chunks")
def test_change_is_weighted_least_squares_of_every_row_and_every_column() -> None:
    made, at = elementwise_problem(8, 5, 3), random_factors(8, 5, 3, seed=1)
    entries = Entries(made)
    solved = at.plus(entries.alternating_solves(at).change(entries.descent(at).force))
    roots = dense_weights(made).sqrt()
    for row in range(8):
        expected = torch.linalg.lstsq(at.right.T * roots[row, :, None], made.matrix[row, :, None] * roots[row, :, None])
        torch.testing.assert_close(solved.left[row], expected.solution[:, 0])
    for column in range(5):
        weighted = made.matrix[:, column, None] * roots[:, column, None]
        expected = torch.linalg.lstsq(at.left * roots[:, column, None], weighted)
        torch.testing.assert_close(solved.right[:, column], expected.solution[:, 0])


def test_rows_without_weight_stay_and_rows_with_too_little_fit_what_they_have() -> None:
    matrix, weights = elementwise_problem(8, 5, 3).matrix, torch.ones(8, 5, dtype=torch.float64)
    weights[0] = 0
    weights[1, 1:] = 0  # one entry, three unknowns
    at = random_factors(8, 5, 3, seed=1)
    entries = Entries(WeightedLowRankProblem(matrix, 3, weights=weights))
    change = entries.alternating_solves(at).change(entries.descent(at).force)
    assert change.left[0].abs().max() == 0
    torch.testing.assert_close((at.left + change.left)[1] @ at.right[:, 0], matrix[1, 0])
    assert change.left.isfinite().all()
    assert change.left[1].norm() < 100
