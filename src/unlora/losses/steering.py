"""Terms on hidden states: what one block says about the tokens, before the rest of the model reads it (RMU).

Symbols: h_t the policy's and h_ref,t the reference's output of the block, of width d, from which scored token t of T is
predicted. Only adapters up to that block get a gradient; the others stay where they start.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.errors import InputError
from unlora.losses.inputs import ForgetInputs, HiddenStates, RetainInputs, required
from unlora.losses.log_probs import Predictions
from unlora.losses.term import ForgetTerm, RetainTerm, refuse_if_negative, refuse_unless_positive
from unlora.shapes import PerExample


@dataclass(frozen=True)
class Steering(ForgetTerm):
    """(1/T) sum_t ||h_t - coefficient u||^2 / d, u a random direction of length 1: misdirect one block (RMU).

    u has independent entries uniform in [0, 1), normalised, and follows from the seed.
    Source: Li et al. 2024, WMDP (arXiv 2403.03218), section 4. The division by d is the released code's, not the
    paper's. There every token of the text is steered (padding too); here those that predict a scored token.
    """

    name = "rmu"
    summary = "Representation misdirection: steer one block's output on the forget set to a random direction."
    paper = "arXiv 2403.03218"
    needs = frozenset({"hidden_states"})
    needs_retain = True

    coefficient: float = 6.5
    """Length of what is steered to, > 0 (c in the paper); of the order of the block's own output or above."""
    block: int | None = None
    """The block, counted from 0; None for the last of the first quarter (7 of 32, as in the paper)."""
    seed: int = 0
    """Of the direction."""

    def __post_init__(self) -> None:
        refuse_unless_positive(self.name, coefficient=self.coefficient)
        _refuse_block(self.name, self.block)
        refuse_if_negative(self.name, seed=self.seed)

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        states = required(inputs.hidden_states, "hidden_states")
        goal = self.coefficient * random_direction(states.shape[1], self.seed).to(states.device)
        return _mean_squared_distance(inputs.predictions, states, goal.expand_as(states))


@dataclass(frozen=True)
class AdaptiveSteering(ForgetTerm):
    """(1/T) sum_t ||h_t - coefficient ||h_ref,t|| u||^2 / d: RMU with a length that fits every block and model.

    Source: Dang et al. 2024 (arXiv 2408.06223), Adaptive RMU, where the coefficient is called beta; u, the division by
    d and the tokens as in `Steering`.
    """

    name = "adaptive_rmu"
    summary = "RMU steered to a multiple of the length that the reference's own output has at the token."
    paper = "arXiv 2408.06223"
    needs = frozenset({"hidden_states", "reference_hidden_states"})
    needs_retain = True

    coefficient: float = 5.0
    """Length of what is steered to, > 0, in lengths of the reference's output at the same token."""
    block: int | None = None
    """As in `Steering`."""
    seed: int = 0
    """Of the direction."""

    def __post_init__(self) -> None:
        refuse_unless_positive(self.name, coefficient=self.coefficient)
        _refuse_block(self.name, self.block)
        refuse_if_negative(self.name, seed=self.seed)

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        states = required(inputs.hidden_states, "hidden_states")
        reference = required(inputs.reference_hidden_states, "reference_hidden_states").detach()
        lengths = torch.linalg.vector_norm(reference, dim=-1, keepdim=True, dtype=_at_least_float32(states))
        direction = random_direction(states.shape[1], self.seed).to(lengths)
        return _mean_squared_distance(inputs.predictions, states, self.coefficient * lengths * direction)


@dataclass(frozen=True)
class RetainHiddenStates(RetainTerm):
    """(1/T) sum_t ||h_t - h_ref,t||^2 / d: keep one block's output where it was (RMU).

    Source: Li et al. 2024, WMDP (arXiv 2403.03218), section 4; divided by d and restricted as the forget term.
    """

    name = "rmu"
    summary = "Distance of one block's output on the retain set from the reference's."
    paper = "arXiv 2403.03218"
    needs = frozenset({"hidden_states", "reference_hidden_states"})

    block: int | None = None
    """The block, counted from 0; None for the forget term's, or the last of the first quarter."""

    def __post_init__(self) -> None:
        _refuse_block(self.name, self.block)

    def __call__(self, inputs: RetainInputs) -> PerExample:
        states = required(inputs.hidden_states, "hidden_states")
        reference = required(inputs.reference_hidden_states, "reference_hidden_states")
        return _mean_squared_distance(inputs.predictions, states, reference.detach())


def random_direction(width: int, seed: int) -> Float[Tensor, " width"]:
    """Entries uniform in [0, 1), scaled to length 1; the same on every device and in every number format."""
    entries = torch.rand(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return entries / entries.norm()


def _mean_squared_distance(predictions: Predictions, states: HiddenStates, goal: HiddenStates) -> PerExample:
    dtype = _at_least_float32(states)
    return predictions.mean_over_tokens((states.to(dtype) - goal.to(dtype)).square().mean(dim=-1))


def _at_least_float32(states: HiddenStates) -> torch.dtype:
    return torch.promote_types(states.dtype, torch.float32)


def _refuse_block(term: str, block: int | None) -> None:
    if block is not None and not 0 <= block < math.inf:
        raise InputError(f"{term}: block must be a whole number >= 0, found {block}.")
