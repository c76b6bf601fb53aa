"""Factors B0, A0 that approximate the weights of each target module, weighted by importance or not."""

import hashlib
from collections.abc import Callable, Mapping
from typing import get_args

import torch
from jaxtyping import Int
from torch import Tensor

from unlora.adapters.initial import InitialFactors, not_reached, refuse_rank
from unlora.errors import InputError
from unlora.importance.importance_map import ImportanceMap
from unlora.importance.ratio import ModuleRatio, module_ratio, module_score
from unlora.low_rank import SolverName, WeightedLowRankProblem, solve
from unlora.models.experts import ExpertModule
from unlora.models.target_modules import TargetModule
from unlora.shapes import Weight


def initial_factors(
    targets: Mapping[str, TargetModule],
    importance: ImportanceMap | None,
    *,
    rank: int,
    scaling: float,
    solver: SolverName = "row",
    shuffle_rows: bool = False,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, InitialFactors]:
    """Solve argmin over rank-r B A of sum_ij M_ij (W - s B A)_ij^2 for every target module.

    The weights M are the importance ratio's; without an importance map they are uniform, which is PiSSA's start
    (arXiv 2404.02948).

    Args:
        targets: canonical name -> linear layer.
        importance: of every target; None weights all entries alike.
        rank: r.
        scaling: s, the adapter's alpha / r.
        solver: what of M is used. "row": its row sums (FILA, arXiv 2408.06621, section 4; VILA, arXiv 2508.21300);
            "separable": row sums times column sums; "elementwise": all of M. Marginals are row times column weights
            to begin with, so the last two are the same for them, in closed form.
        shuffle_rows: the control for importance: the same weights with the rows in a random order, which depends on
            the seed and the module's name.
        seed: of the solvers and of the order.
        progress: called with 1 after each module.

    Raises:
        InputError: the rank is larger than a layer, no such solver, no weights to shuffle, or all of them zero.
    """
    if solver not in get_args(SolverName):
        raise InputError(f"solver: '{solver}' is none of {', '.join(get_args(SolverName))}.")
    if shuffle_rows and importance is None:
        raise InputError(
            "shuffle_rows: without an importance map all rows weigh the same; there is nothing to shuffle."
        )
    factors: dict[str, InitialFactors] = {}
    for name, target in targets.items():
        refuse_rank(rank, target)
        weight = target.weight().cpu()
        problem = WeightedLowRankProblem(weight, rank, row_weights=torch.ones(target.d_out))
        floored_fraction = None
        if importance is not None and isinstance(target, ExpertModule) and not module_score(importance[name]):
            factors[name] = not_reached(target, rank)
            continue
        if importance is not None:
            ratio = module_ratio(importance[name], elementwise=solver == "elementwise")
            order = row_order(name, target.d_out, seed) if shuffle_rows else None
            try:
                problem = weighted_problem(weight, rank, ratio, solver, order)
            except InputError as error:
                raise InputError(f"importance ratio of target module '{name}': {error}") from None
            floored_fraction = ratio.floored_fraction
        solution = solve(problem, seed=seed)
        share = scaling**-0.5
        factors[name] = InitialFactors(
            lora_b=solution.left * share,
            lora_a=solution.right * share,
            relative_residual=solution.relative_residual,
            status=solution.status,
            floored_fraction=floored_fraction,
        )
        if progress is not None:
            progress(1)
    return factors


def weighted_problem(
    weight: Weight, rank: int, ratio: ModuleRatio, solver: SolverName, order: Int[Tensor, " d_out"] | None = None
) -> WeightedLowRankProblem:
    """Return the problem with what `solver` uses of the ratio; row i of W gets the weights of row order[i].

    Raises:
        InputError: weights that are all zero or not finite.
    """
    if solver == "elementwise" and ratio.weights is not None:
        weights = ratio.weights if order is None else ratio.weights[order]
        return WeightedLowRankProblem(weight, rank, weights=weights)
    rows = ratio.row_weights if order is None else ratio.row_weights[order]
    columns = None if solver == "row" else ratio.column_weights
    return WeightedLowRankProblem(weight, rank, row_weights=rows, column_weights=columns)


def row_order(name: str, count: int, seed: int) -> Int[Tensor, " count"]:
    """Return a random order of 0 to count - 1 for the module `name`, the same whatever other modules there are."""
    digest = hashlib.sha256(f"rows:{seed}:{name}".encode()).digest()
    return torch.randperm(count, generator=torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
