"""Every setting of an audit. Pure data: validating it loads no torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from unlora.audit.attacker_table import ATTACKERS, DEFAULT_ATTACKERS
from unlora.audit.names import ATTACKS
from unlora.config import Config
from unlora.own_code import refuse_unknown


class MembershipSettings(Config):
    """Can it be told that the model was trained on the forget set?"""

    min_k_fraction: float = Field(default=0.4, gt=0, le=1)
    """Share of the least likely tokens in Min-K% and Min-K%++ (MUSE takes 40 %)."""
    gradient_norm: bool = False
    """Run the gradient-norm attack too: one backward pass for every example and model, most of the attack's time."""
    reference: str | None = None
    """Model of the reference attack; None takes the base of a target that is an adapter."""


class SamplingSettings(Config):
    """Does the answer come out when the model is asked often enough?"""

    samples: int = Field(default=8, ge=1)
    """Answers drawn for each question."""
    k: list[Annotated[int, Field(ge=1)]] = Field(default=[1, 4, 8], min_length=1)
    """leak@k is reported for each of these."""
    temperature: float = Field(default=1.0, gt=0)
    """1 is the model's own distribution."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus; 1 is the whole vocabulary."""
    max_new_tokens: int = Field(default=40, ge=1)
    """Longest answer."""

    @model_validator(mode="after")
    def _samples_for_a_k(self) -> "SamplingSettings":
        if min(self.k) > self.samples:
            raise ValueError(f"k: needs a number that is not above the {self.samples} samples")
        return self


class IndirectSettings(Config):
    """Does the answer come out when the person is named otherwise, or described?"""

    tries: int = Field(default=1, ge=1)
    """Descriptions that the target is asked about for one question; the first that it can use is taken."""


class QuantisationSettings(Config):
    """Does rounding the merged weights bring it back?"""

    formats: list[Literal["int8", "nf4"]] = Field(default=["int8", "nf4"], min_length=1)
    """LLM.int8 and 4-bit NormalFloat, both through bitsandbytes."""


class RelearningSettings(Config):
    """Does a little fine-tuning bring it back, and more of it than the control learns?"""

    attackers: list[str] = Field(default=list(DEFAULT_ATTACKERS), min_length=1)
    """Who trains, how and on what: names of the table (docs/audit), or module:Class of your own."""
    fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the forget set that an attacker of lesson "few" has; the others are tested."""
    apart: Literal["records", "people"] = "records"
    """What such an attacker has: records, or all about some people (field `person`), tested on the others."""
    steps: int = Field(default=12, ge=1)
    """Optimiser steps."""
    measure_every: int = Field(default=4, ge=1)
    """Steps between measurements; the best of them counts."""
    batch_size: int = Field(default=4, ge=1)
    """Examples per step."""
    seeds: list[NonNegativeInt] = Field(default=[0], min_length=1)
    """Each draws the attacker's share and data order anew."""

    @field_validator("attackers")
    @classmethod
    def _attackers_are_known(cls, value: list[str]) -> list[str]:
        refuse_unknown(value, ATTACKERS, "attacker")
        return list(dict.fromkeys(value))


class AuditSettings(Config):
    """The whole of `unlora audit`, beside what the run itself recorded."""

    attacks: list[str] = Field(default=list(ATTACKS), min_length=1)
    """What to run: names of the table (docs/audit), or module:Class of your own."""
    retain_only: str | None = None
    """The control, a model that never saw the forget set; None takes the run's own."""
    retain_only_base: str | None = None
    """Base of the control when it is an adapter, when not where its own config says."""
    holdout: str | None = None
    """Records like the forget set that no model ever saw: the non-members of the membership attacks."""
    known_attackers: list[str] = Field(default_factory=list)
    """Attackers that training or tuning has used: they are tried and shown, and do not count in the verdict. What the
    run itself recorded is added."""
    same_person: str | None = None
    """Records to keep about the people of the forget set; None looks for them in the retain set by `person`."""
    max_examples: int = Field(default=40, ge=2)
    """First examples of each set that are asked about."""
    batch_size: int = Field(default=16, ge=1)
    """Sequences per forward pass."""
    seed: int = Field(default=0, ge=0)
    """Seeds samples, bootstrap intervals and data order."""
    membership: MembershipSettings = MembershipSettings()
    sampling: SamplingSettings = SamplingSettings()
    indirect: IndirectSettings = IndirectSettings()
    quantisation: QuantisationSettings = QuantisationSettings()
    relearning: RelearningSettings = RelearningSettings()

    @field_validator("attacks")
    @classmethod
    def _attacks_are_known(cls, value: list[str]) -> list[str]:
        refuse_unknown(value, ATTACKS, "attack")
        return list(dict.fromkeys(value))

    @field_validator("known_attackers")
    @classmethod
    def _known_attackers_are_known(cls, value: list[str]) -> list[str]:
        refuse_unknown(value, ATTACKERS, "attacker")
        return value


SCALES: dict[str, dict[str, Any]] = {
    "default": {},
    "full": {
        "max_examples": 400,
        "membership": {"gradient_norm": True},
        "sampling": {"samples": 64, "k": [1, 16, 64], "max_new_tokens": 128},
        "indirect": {"tries": 3},
        "relearning": {"attackers": list(ATTACKERS), "steps": 60, "measure_every": 6, "batch_size": 8, "seeds": [0, 1]},
    },
}
"""default: minutes on two cores with a model of 135M parameters; full: for a GPU."""
