"""A weight for every entry: no closed form; conjugate gradients preconditioned by alternating least squares."""

from dataclasses import dataclass

import numpy as np
import torch

from unlora.errors import InputError
from unlora.low_rank.passes import Entries, FactorPair
from unlora.low_rank.problem import WeightedLowRankProblem
from unlora.low_rank.separable import separable_factors
from unlora.low_rank.solution import LowRankSolution, SolutionStatus, make_solution, symmetric_split

REFRESH_EVERY = 5
"""Steps between two factorisations of the normal matrices: as good as every step, and cheaper from rank 16 on."""
EXACT_SHARE = 1e-28
"""An objective below this share of the weighted square of W is rounding."""


@dataclass(frozen=True)
class ElementwiseSettings:
    """When the elementwise solver stops, and how often it starts.

    Raises:
        InputError: a number out of range.
    """

    tolerance: float = 1e-6
    """Stop when solving every row and every column once more would lower the squared residual by less than this share.
    What full convergence would still gain is about as much, in our measurements within a factor of ten."""
    max_iterations: int = 200
    restarts: int = 0
    """Random starts beside the one from the separable solution; the best result is kept. The problem has local minima,
    far apart on matrices of a few entries and within 1e-3 of each other on layers of a language model."""

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise InputError(f"tolerance: must lie between 0 and 1, found {self.tolerance}.")
        if self.max_iterations < 1:
            raise InputError(f"max_iterations: must be at least 1, found {self.max_iterations}.")
        if self.restarts < 0:
            raise InputError(f"restarts: must not be negative, found {self.restarts}.")


@dataclass(frozen=True)
class Descended:
    """One descent from one start."""

    factors: FactorPair
    status: SolutionStatus
    objectives: list[float]
    """f of the start and after each step, for an M of mean 1."""


@torch.no_grad()
def solve_elementwise(
    problem: WeightedLowRankProblem, *, seed: int = 0, settings: ElementwiseSettings | None = None
) -> LowRankSolution:
    """Find a minimum over rank-r X = L R of f(L, R) = sum_ij M_ij (W - L R)_ij^2.

    Alternating least squares solves every row of L given R, then every column of R given L. Here both solves are taken
    at the same point and serve as the preconditioner of nonlinear conjugate gradients, whose step is exact: along a
    line f is a polynomial of degree four. A step that would not lower f is not taken, so f never rises. On layers of a
    language model both methods come within 1e-3 of the minimum of f in some ten steps; from there these directions
    gain a digit every ten to forty steps and alternation hardly any. The result is a local minimum that is never worse
    than the separable solution it starts from.

    Numbers are float64 in chunks of rows; beside the factors, (d_out + d_in) rank^2 of them are held. Rows and columns
    of weight zero keep their start. Transposing W and M transposes the solution.
    Source: Srebro and Jaakkola 2003 (the problem); De Sterck and Winlaw 2015, arXiv 1407.3739 (alternating least
    squares as preconditioner); Polak and Ribiere 1969 (the direction).

    Args:
        problem: W (d_out, d_in), weights of any form, rank.
        seed: of the sketch that the start comes from, and of the random starts.
        settings: when to stop; None takes the defaults.

    Returns:
        Factors in float32 (float64 for a float64 matrix) on the matrix's device, "converged" or "max_iterations".
    """
    settings = settings or ElementwiseSettings()
    entries = Entries(problem)
    start = separable_factors(problem, seed)
    best = descend(entries, FactorPair(start.left, start.right), settings)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(settings.restarts):
        run = descend(entries, _random_factors(problem, generator), settings)
        best = min(best, run, key=lambda run: run.objectives[-1])
    dtype = torch.promote_types(problem.matrix.dtype, torch.float32)
    left, right = symmetric_split(*best.factors)
    return make_solution(
        problem,
        left.to(dtype),
        right.to(dtype),
        status=best.status,
        iterations=len(best.objectives) - 1,
        trace=tuple((objective / entries.scale) ** 0.5 for objective in best.objectives),
    )


def descend(entries: Entries, at: FactorPair, settings: ElementwiseSettings) -> Descended:
    """Go down from `at` until nothing is left to gain or the iterations are used up."""
    negligible = EXACT_SHARE * entries.descent(FactorPair(0 * at.left, 0 * at.right)).objective
    here, solves = entries.descent(at), entries.alternating_solves(at)
    objectives = [here.objective]
    direction: FactorPair | None = None
    last_force, last_gain = here.force, 1.0
    for iteration in range(settings.max_iterations + 1):
        if iteration and iteration % REFRESH_EVERY == 0:
            solves = entries.alternating_solves(at)
        change = solves.change(here.force)
        gain = here.force.dot(change)
        if gain <= settings.tolerance * here.objective or here.objective <= negligible:
            return Descended(at, "converged", objectives)
        if iteration == settings.max_iterations:
            break
        if direction is not None:
            direction = change.plus(direction, max(0.0, (gain - last_force.dot(change)) / last_gain))
        conjugate = direction is not None and here.force.dot(direction) > 0
        if direction is None or not conjugate:
            direction = change
        moved = at.plus(direction, lowest_point(*entries.along(at, direction)))
        there = entries.descent(moved)
        if there.objective < here.objective:
            objectives.append(there.objective)
            last_force, last_gain, at, here = here.force, gain, moved, there
        elif conjugate:
            direction = None  # start again from the alternating step
        else:
            return Descended(at, "converged", objectives)  # what is left to gain is below rounding
    return Descended(at, "max_iterations", objectives)


def lowest_point(first: float, second: float, third: float, fourth: float) -> float:
    """Return the t with the smallest first t + second t^2 + third t^3 + fourth t^4, for fourth >= 0."""
    candidates = [0.0]
    if second > 0:  # Near the end the polynomial is all but a parabola, whose vertex the roots may miss by rounding.
        candidates.append(-first / (2 * second))
    slope = np.array([4 * fourth, 3 * third, 2 * second, first])
    if np.isfinite(slope).all():
        candidates += [float(root) for root in np.roots(slope).real]
    return min(candidates, key=lambda t: t * (first + t * (second + t * (third + t * fourth))))


def _random_factors(problem: WeightedLowRankProblem, generator: torch.Generator) -> FactorPair:
    """Return normal entries, such that the entries of the product are as large as those of W."""
    height, width = problem.matrix.shape
    spread = float(problem.matrix.double().square().mean()) ** 0.25 / problem.rank**0.25
    left = spread * torch.randn(height, problem.rank, generator=generator, dtype=torch.float64)
    right = spread * torch.randn(problem.rank, width, generator=generator, dtype=torch.float64)
    return FactorPair(left.to(problem.matrix.device), right.to(problem.matrix.device))
