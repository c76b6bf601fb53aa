"""Where LoRA starts: the factors B0, A0 of each target module."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.errors import InputError
from unlora.importance.importance_map import ImportanceMap
from unlora.importance.ratio import module_ratio
from unlora.low_rank import WeightedLowRankProblem, solve
from unlora.models.target_modules import TargetModule
from unlora.shapes import LoraA, LoraB

InitialisationName = Literal["importance", "uniform", "plain"]


@dataclass(frozen=True)
class InitialFactors:
    """One module's start; scaling * lora_b @ lora_a is the initial product that the anchor cancels."""

    lora_b: LoraB
    lora_a: LoraA
    relative_residual: float
    """Weighted residual over the weighted norm of W: the share that the product leaves out."""
    status: str
    floored_fraction: float | None
    """Share of the ratio's denominators that the floor ruled; None where no ratio was taken."""


def initial_factors(
    targets: Mapping[str, TargetModule],
    importance: ImportanceMap | None,
    *,
    rank: int,
    scaling: float,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, InitialFactors]:
    """Solve argmin over rank-r B A of sum_ij w_i (W - s B A)_ij^2 for every target module.

    The row weights w are the importance ratio's (FILA, arXiv 2408.06621, section 4; VILA, arXiv 2508.21300); without
    an importance map they are uniform, which is PiSSA's start (arXiv 2404.02948).

    Raises:
        InputError: the rank is larger than a layer.
    """
    factors: dict[str, InitialFactors] = {}
    for name, target in targets.items():
        refuse_rank(rank, target)
        weight = target.weight().cpu()
        row_weights: Float[Tensor, " d_out"] = torch.ones(target.d_out)
        floored_fraction = None
        if importance is not None:
            ratio = module_ratio(importance[name])
            row_weights, floored_fraction = ratio.row_weights, ratio.floored_fraction
        solution = solve(WeightedLowRankProblem(weight, row_weights, rank), seed=seed)
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


def refuse_rank(rank: int, target: TargetModule) -> None:
    """Refuse a rank that the layer cannot have.

    Raises:
        InputError: naming the layer and the largest possible rank.
    """
    largest = min(target.d_out, target.d_in)
    if not 1 <= rank <= largest:
        raise InputError(
            f"adapter.rank: {rank} does not fit target module '{target.name}' of shape "
            f"({target.d_out}, {target.d_in}); use 1 to {largest}."
        )
