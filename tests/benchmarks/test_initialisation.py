"""Solvers that are compared solve the same problem."""

import math

import numpy
import pytest
import torch

from benchmarks import initialisation
from unlora.low_rank import WeightedLowRankProblem


def problems() -> dict[str, WeightedLowRankProblem]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"first": (150, 200), "second": (150, 200), "third": (200, 150)}
    return {
        name: WeightedLowRankProblem(
            torch.randn(shape, generator=draw), 4, row_weights=torch.rand(shape[0], generator=draw) + 0.1
        )
        for name, shape in shapes.items()
    }


def test_stacked_layers_get_the_solutions_of_single_ones():
    given = problems()
    stacked, single = initialisation.solve_stacked(given), initialisation.solve_in_turn(given)
    for name in given:
        torch.testing.assert_close(
            stacked[name][0] @ stacked[name][1], single[name][0] @ single[name][1], atol=1e-4, rtol=1e-4
        )


def test_lost_is_measured_against_the_exact_decomposition():
    given = problems()
    exact = {}
    for name, problem in given.items():
        assert problem.row_weights is not None
        roots = (problem.row_weights.double() / problem.row_weights.double().mean()).sqrt()[:, None].numpy()
        left, values, right = numpy.linalg.svd(roots * problem.matrix.double().numpy(), full_matrices=False)
        assert initialisation.best_losses(given)[name] == pytest.approx(math.sqrt((values[4:] ** 2).sum()), rel=1e-5)
        exact[name] = (torch.tensor(left[:, :4] * values[:4] / roots), torch.tensor(right[:4]))
    best = initialisation.best_losses(given)
    assert initialisation.lost(given, exact, best) == pytest.approx(1, abs=1e-5)
    torch.manual_seed(0)
    released = initialisation.lost(given, initialisation.solve_as_released(given), best)
    ours = initialisation.lost(given, initialisation.solve_in_turn(given), best)
    assert 1 <= ours < released < 1.1
