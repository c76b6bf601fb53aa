"""LoRA's start in the directions that only the forget set uses."""

from collections.abc import Callable, Mapping

import torch

from unlora.adapters.initial import InitialFactors, not_reached, refuse_rank
from unlora.errors import InputError
from unlora.importance.contrast_map import ContrastMap
from unlora.low_rank import WeightedLowRankProblem, solve
from unlora.models.experts import ExpertModule
from unlora.models.target_modules import TargetModule


def contrast_factors(
    targets: Mapping[str, TargetModule],
    contrast: ContrastMap,
    *,
    rank: int,
    scaling: float,
    inputs_only: bool = False,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, InitialFactors]:
    """B0 from the output directions, A0 from the input directions of every target module.

    An anchored adapter may start from any B0, A0: their product cancels, and the first steps move W by
    -(G A0^T A0 + B0 B0^T G), G the gradient. So A0 decides which inputs can feel a change, and B0 in which outputs.
    Both get the Frobenius norms that the best rank-r approximation of W has in that layer (PiSSA's start, balanced), so
    that one learning rate serves all starts alike; within a factor all directions have one length.

    Args:
        targets: canonical name -> linear layer.
        contrast: of every target, with at least `rank` directions.
        rank: r.
        scaling: s, the adapter's alpha / r.
        inputs_only: start with B0 = 0, as ordinary LoRA does: only which inputs feel a change is chosen, and no output
            directions are needed.
        seed: of the randomised decomposition that the norms come from.
        progress: called with 1 after each module.

    Raises:
        InputError: the rank is larger than a layer, or there are no output directions where they are needed.
    """
    factors: dict[str, InitialFactors] = {}
    for name, target in targets.items():
        refuse_rank(rank, target)
        directions = contrast[name]
        if isinstance(target, ExpertModule) and not directions.inputs.any():
            factors[name] = not_reached(target, rank)
            continue
        uniform = WeightedLowRankProblem(target.weight().cpu(), rank, row_weights=torch.ones(target.d_out))
        # Balanced: both factors of the solution have this norm.
        length = torch.linalg.matrix_norm(solve(uniform, seed=seed).right) * (scaling * rank) ** -0.5
        if inputs_only:
            lora_b = torch.zeros(target.d_out, rank)
        elif directions.outputs is None:
            raise InputError(f"target module '{name}': only input directions were measured; leave inputs_only off.")
        else:
            lora_b = (directions.outputs[:, :rank] * length).contiguous()
        factors[name] = InitialFactors(
            lora_b=lora_b,
            lora_a=(directions.inputs[:, :rank].T * length).contiguous(),
            relative_residual=None,
            status="contrast",
            floored_fraction=None,
        )
        if progress is not None:
            progress(1)
    return factors
