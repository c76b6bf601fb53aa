"""What training minimises: forget term + retain weight x retain term. Means and the weight are applied here only."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from unlora.errors import InputError, nearest
from unlora.losses.forget_terms import FORGET_TERMS, NPO, ForgetTerm, GradientAscent
from unlora.losses.log_probs import Predictions
from unlora.losses.retain_terms import RETAIN_TERMS, RetainTerm
from unlora.shapes import PerExample

GRADIENT_DIFFERENCE = "gd"
"""Gradient ascent that may not go without a retain term (Liu et al. 2022, arXiv 2203.12817)."""


@dataclass(frozen=True)
class ObjectiveParts:
    """The objective of one batch; the two terms are unweighted means over examples."""

    forget_term: Float[Tensor, ""]
    retain_term: Float[Tensor, ""] | None
    total: Float[Tensor, ""]
    """forget_term + retain_weight * retain_term: what to differentiate."""


@dataclass(frozen=True)
class Objective:
    """mean over the forget batch of the forget term + retain_weight * mean over the retain batch of the retain term.

    `Objective("ihl", retain="nll", retain_weight=1.3)`.

    Raises:
        InputError: an unknown name, a weight or beta out of range, or no retain term where the forget term needs one.
    """

    forget: str | ForgetTerm
    """Name in `FORGET_TERMS`, "gd" (gradient ascent with a retain term), or a term of your own."""
    retain: str | None = "nll"
    """Name in `RETAIN_TERMS`; None for no retain term."""
    retain_weight: float = 1.0
    """Multiplies the retain term (lambda in the papers); no unit, >= 0."""
    beta: float | None = None
    """Inverse temperature of "npo"; None for its default. Other terms have none."""

    def __post_init__(self) -> None:
        if not 0 <= self.retain_weight < math.inf:
            raise InputError(f"Objective: retain_weight must be a number >= 0, found {self.retain_weight}.")
        pair_needed = self.forget == GRADIENT_DIFFERENCE or self.forget_term.needs_retain
        if self.retain_term is None and pair_needed:
            name = self.forget if isinstance(self.forget, str) else self.forget.name
            raise InputError(f"Objective: '{name}' needs a retain term: retain=\"nll\" (objective.retain: nll).")

    @cached_property
    def forget_term(self) -> ForgetTerm:
        """The forget term that the name and beta stand for."""
        if self.forget == NPO.name and self.beta is not None:
            return NPO(self.beta)
        if self.beta is not None:
            raise InputError(f"Objective: beta belongs to 'npo' given by name, not to {self.forget!r}.")
        if isinstance(self.forget, ForgetTerm):
            return self.forget
        if self.forget == GRADIENT_DIFFERENCE:
            return GradientAscent()
        if self.forget not in FORGET_TERMS:
            raise _unknown("forget term", self.forget, [*FORGET_TERMS, GRADIENT_DIFFERENCE])
        return FORGET_TERMS[self.forget]()

    @cached_property
    def retain_term(self) -> RetainTerm | None:
        """The retain term that the name stands for."""
        if self.retain is None:
            return None
        if self.retain not in RETAIN_TERMS:
            raise _unknown("retain term", self.retain, RETAIN_TERMS)
        return RETAIN_TERMS[self.retain]()

    @property
    def needs_reference(self) -> bool:
        """True when calls need the reference model's log-probabilities."""
        return self.forget_term.needs_reference

    def __call__(
        self, forget: Predictions, retain: Predictions | None, reference_log_probs: PerExample | None
    ) -> ObjectiveParts:
        """Combine one forget batch and one retain batch; the two may differ in size.

        Args:
            forget: predictions on forget examples.
            retain: predictions on retain examples; not read when the objective has no retain term.
            reference_log_probs: the reference model's `sequence_log_probs` of the forget batch; None when not needed.

        Raises:
            InputError: the retain batch or the reference is missing and needed.
        """
        forget_mean = self.forget_term(forget, reference_log_probs).mean()
        if self.retain_term is None:
            return ObjectiveParts(forget_mean, None, forget_mean)
        if retain is None:
            raise InputError(f"Objective: the retain term '{self.retain}' needs a retain batch; give a retain set.")
        retain_mean = self.retain_term(retain).mean()
        return ObjectiveParts(forget_mean, retain_mean, forget_mean + self.retain_weight * retain_mean)

    def describe(self) -> dict[str, Any]:
        """What was minimised, for the record of a run: the terms by name with their own parameters."""
        record: dict[str, Any] = {"forget": self.forget_term.name, **vars(self.forget_term), "retain": self.retain}
        return record if self.retain is None else record | {"retain_weight": self.retain_weight}


def _unknown(kind: str, name: str, choices: Iterable[str]) -> InputError:
    hint = nearest(name, choices) or f" Known: {', '.join(choices)}."
    return InputError(f"Objective: unknown {kind} '{name}'.{hint}")
