"""What training minimises: forget term + retain weight x retain term. Means and the weight are applied here only."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from unlora.errors import InputError
from unlora.losses.ascent import GradientAscent
from unlora.losses.forget_terms import FORGET_TERMS
from unlora.losses.inputs import ForgetInputs, RetainInputs
from unlora.losses.named import find_term, make_term, refuse_incomplete
from unlora.losses.retain_terms import RETAIN_TERMS
from unlora.losses.term import ForgetTerm, RetainTerm

GRADIENT_DIFFERENCE = "gd"
"""Gradient ascent that may not go without a retain term (GradDiff; Liu et al. 2022, arXiv 2203.12817)."""


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

    `Objective("npo", retain="kl", retain_weight=1.3, forget_parameters={"beta": 0.2})`. Any forget term goes with any
    retain term.

    Raises:
        InputError: an unknown name, a parameter or a weight that is none, or no retain term where one is needed.
    """

    forget: str | ForgetTerm
    """Name in `FORGET_TERMS`, "gd" (gradient ascent with a retain term), "module:Class", or a term of your own."""
    retain: str | RetainTerm | None = "nll"
    """Name in `RETAIN_TERMS`, "module:Class", or a term of your own; None for no retain term."""
    retain_weight: float = 1.0
    """Multiplies the retain term (lambda in the papers); no unit, >= 0."""
    forget_parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of a forget term given by name; those left out keep the term's default."""
    retain_parameters: Mapping[str, Any] = field(default_factory=dict)
    """The same of the retain term."""
    separation: float = 0.0
    """Weight of what the adapter does to all forget examples of a batch alike, 0 to leave it out, no unit
    (`unlora.training.shared_shift`)."""
    forget_strength: float = 1.0
    """Part of the adapter's strength at which the forget term reads it, in (0, 1]; the retain term reads it at 1
    (`unlora.training.row_strength`)."""

    def __post_init__(self) -> None:
        if not 0 <= self.retain_weight < math.inf:
            raise InputError(f"Objective: retain_weight must be a number >= 0, found {self.retain_weight}.")
        if not 0 <= self.separation < math.inf:
            raise InputError(f"Objective: separation must be a number >= 0, found {self.separation}.")
        if not 0 < self.forget_strength <= 1:
            raise InputError(f"Objective: forget_strength must lie above 0, at most 1, found {self.forget_strength}.")
        pair_needed = self.forget == GRADIENT_DIFFERENCE or self.forget_term.needs_retain
        if self.retain_term is None and pair_needed:
            name = self.forget if isinstance(self.forget, str) else self.forget.name
            raise InputError(f"Objective: '{name}' needs a retain term: retain=\"nll\" (objective.retain: nll).")

    @cached_property
    def forget_term(self) -> ForgetTerm:
        """The forget term that the name and its parameters stand for."""
        if isinstance(self.forget, ForgetTerm):
            _refuse_parameters(self.forget, self.forget_parameters)
            return self.forget
        if self.forget == GRADIENT_DIFFERENCE:
            return make_term(GradientAscent, self.forget_parameters)
        others = [GRADIENT_DIFFERENCE]
        term = find_term(ForgetTerm, FORGET_TERMS, self.forget, where="forget term", others=others)
        return make_term(term, self.forget_parameters)

    @cached_property
    def retain_term(self) -> RetainTerm | None:
        """The retain term that the name and its parameters stand for."""
        if self.retain is None:
            if self.retain_parameters:
                raise InputError("Objective: retain_parameters without a retain term.")
            return None
        if isinstance(self.retain, RetainTerm):
            _refuse_parameters(self.retain, self.retain_parameters)
            return self.retain
        term = find_term(RetainTerm, RETAIN_TERMS, self.retain, where="retain term")
        return make_term(term, self.retain_parameters)

    @property
    def needs_refusals(self) -> bool:
        """True when every forget example must come with a refusal."""
        term = self.forget_term
        return term.completion == "refusal" or bool(term.needs & {"refusal", "refusal_reference_log_probs"})

    def __call__(self, forget: ForgetInputs, retain: RetainInputs | None) -> ObjectiveParts:
        """Combine one forget batch and one retain batch; the two may differ in size.

        Args:
            forget: what is known about the forget examples.
            retain: what is known about the retain examples; not read when the objective has no retain term.

        Raises:
            InputError: the retain batch, or what a term needs, is missing.
        """
        forget_mean = self.forget_term(forget).mean()
        if self.retain_term is None:
            return ObjectiveParts(forget_mean, None, forget_mean)
        if retain is None:
            name = self.retain_term.name
            raise InputError(f"Objective: the retain term '{name}' needs a retain batch; give a retain set.")
        retain_mean = self.retain_term(retain).mean()
        return ObjectiveParts(forget_mean, retain_mean, forget_mean + self.retain_weight * retain_mean)

    def describe(self) -> dict[str, Any]:
        """What was minimised, for the record of a run: the terms by name with their own parameters."""
        retain = self.retain_term
        record: dict[str, Any] = {"forget": self.forget_term.name, **_parameters(self.forget_term)}
        record |= {"separation": self.separation} if self.separation else {}
        record |= {"forget_strength": self.forget_strength} if self.forget_strength != 1 else {}
        if retain is None:
            return record | {"retain": None}
        own = {f"retain_{name}": value for name, value in _parameters(retain).items()}
        return record | {"retain": retain.name, "retain_weight": self.retain_weight} | own


def _refuse_parameters(term: ForgetTerm | RetainTerm, parameters: Mapping[str, Any]) -> None:
    refuse_incomplete(type(term))
    if parameters:
        raise InputError(f"Objective: '{term.name}' is given as an object; set its parameters there.")


def _parameters(term: ForgetTerm | RetainTerm) -> dict[str, Any]:
    """A term's own parameters but for those left open (None)."""
    named = ((one.name, getattr(term, one.name)) for one in dataclasses.fields(term))  # pyright: ignore[reportArgumentType]  a dataclass
    return {name: value for name, value in named if value is not None}
