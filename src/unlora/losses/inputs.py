"""What a term may look at. It declares what it `needs`; nothing else is computed."""

from dataclasses import dataclass
from typing import Literal, TypeVar

from jaxtyping import Float
from torch import Tensor

from unlora.errors import InputError
from unlora.losses.log_probs import Predictions
from unlora.shapes import PerExample

Need = Literal[
    "reference_log_probs",
    "reference",
    "refusal",
    "refusal_reference_log_probs",
    "hidden_states",
    "reference_hidden_states",
]
"""A field of `ForgetInputs` or `RetainInputs` that is filled only for terms that ask for it."""

HiddenStates = Float[Tensor, "scored width"]
"""The outputs of one block from which the scored tokens of all examples are predicted, in reading order."""

ValueType = TypeVar("ValueType")


@dataclass(frozen=True)
class ForgetInputs:
    """What is known about a batch of forget examples. The reference is the target model: adapters off, no gradient."""

    predictions: Predictions
    """Of the policy, on the answers; on the refusals for a term whose `completion` is "refusal"."""
    reference_log_probs: PerExample | None = None
    """The reference's `sequence_log_probs` of the same completions; computed once a run."""
    reference: Predictions | None = None
    """The reference's predictions of the same completions; costs one more forward pass a batch."""
    refusal: Predictions | None = None
    """Of the policy, on the same prompts answered with a refusal."""
    refusal_reference_log_probs: PerExample | None = None
    """The reference's `sequence_log_probs` of the refusals; computed once a run."""
    hidden_states: HiddenStates | None = None
    """The policy's, behind the block that the term names."""
    reference_hidden_states: HiddenStates | None = None
    """The reference's, behind the same block; costs one more forward pass a batch."""


@dataclass(frozen=True)
class RetainInputs:
    """What is known about a batch of retain examples; the fields are those of `ForgetInputs`."""

    predictions: Predictions
    reference: Predictions | None = None
    hidden_states: HiddenStates | None = None
    reference_hidden_states: HiddenStates | None = None


def required(value: ValueType | None, need: Need) -> ValueType:
    """Return an input that was asked for.

    Raises:
        InputError: it was not computed, because the term's `needs` does not name it.
    """
    if value is None:
        raise InputError(f"the term reads '{need}', which was not computed; add it to the term's `needs`.")
    return value
