"""Where one layer's adapter starts, whatever decided it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from unlora.errors import InputError
from unlora.models.target_modules import TargetModule
from unlora.shapes import LoraA, LoraB

NOT_REACHED = "not reached"
"""Status of an expert's factors when the forget set says nothing about it."""


@dataclass(frozen=True)
class InitialFactors:
    """One module's start; scaling * lora_b @ lora_a is the initial product that the anchor cancels."""

    lora_b: LoraB
    lora_a: LoraA
    relative_residual: float | None
    """Weighted residual over the weighted norm of W: the share that the product leaves out; None where the start is not
    an approximation of W."""
    status: str
    floored_fraction: float | None
    """Share of the ratio's denominators that the floor ruled; None where no ratio was taken."""


@dataclass(frozen=True)
class FactorRequest:
    """What the factors of all layers have in common, and who hears of each layer that is done."""

    rank: int
    """r."""
    scaling: float
    """s, the adapter's alpha / r."""
    seed: int = 0
    """Of everything random."""
    progress: Callable[[int], None] | None = None
    """Called with 1 after each layer."""

    def done(self) -> None:
        """Say that another layer is finished."""
        if self.progress is not None:
            self.progress(1)


def not_reached(target: TargetModule, rank: int) -> InitialFactors:
    """Factors of an expert that no token of the forget set was routed to: zeros, which never learn."""
    return InitialFactors(torch.zeros(target.d_out, rank), torch.zeros(rank, target.d_in), None, NOT_REACHED, None)


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
