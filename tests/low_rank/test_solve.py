import torch

from unlora.low_rank import WeightedLowRankProblem, solve, solve_row_weighted


def test_solve_uses_the_row_solver_and_passes_the_seed_on() -> None:
    matrix = torch.randn(150, 140, generator=torch.Generator().manual_seed(0))
    problem = WeightedLowRankProblem(matrix, torch.arange(1.0, 151.0), 4)
    solution, expected = solve(problem, seed=3), solve_row_weighted(problem, seed=3)
    assert torch.equal(solution.left, expected.left)
    assert torch.equal(solution.right, expected.right)
