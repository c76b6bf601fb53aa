"""What the map says of one class."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from unlora.config import Config

Outcome = Literal["works", "partly", "refused", "not built", "wrong", "error"]
"""`partly`: works, and names what it leaves out; `not built`: transformers itself cannot make it tiny, or cannot read
text alone with it; `wrong`: a number is not what it must be; `error`: something that is not said in one line."""

MEANINGS: dict[Outcome, str] = {
    "works": "works, every weight in reach",
    "partly": "works, with what is left out named",
    "refused": "refused in one line",
    "not built": "not built or not run here by transformers itself",
    "wrong": "a number that is wrong",
    "error": "an error that nobody words",
}
STARTS = ("contrast_inputs", "marginal")
"""One that trains B alone from zero, and one that is anchored and saved with twice the rank."""
EXAMPLES = 8
"""Of either set, which is two steps of four."""
LOGITS = 1e-5
"""Largest difference of a logit between an adapter's factors, added to the weights by hand, and plain PEFT; relative to
the largest logit where that is above one."""
NATS = 1e-4
"""Largest difference of a token's log-probability from the model's own forward pass: alone, in a padded batch, or of
the logits that a loss is computed from."""
PLANNED = 0.1
"""Largest relative difference between what `plan` says and what was made: share reached, weights, adapter."""


class Verdict(Config):
    """One class, and what came of it."""

    kind: str
    """Model type."""
    name: str
    """Of the class that is built."""
    outcome: Outcome
    line: str = ""
    """What was said: the refusal, the reach, or the error."""
    stage: str = ""
    """Where it ended, if it did."""
    reach: float | None = None
    """Share of the weights with an adapter, embedding and head not counted."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Weights without one -> why."""
    notes: tuple[str, ...] = ()
    """What else the reach says."""
    peft_difference: float | None = None
    """See LOGITS; the larger of both starts."""
    merged_difference: float | None = None
    """The same of the exported model with the adapter merged."""
    moved: float | None = None
    """Largest change of a logit by the adapter: the smaller of both starts."""
    double_difference: float | None = None
    """As `peft_difference`, in float64; measured where that is above LOGITS."""
    score_difference: float | None = None
    """See NATS."""
    plan_difference: float | None = None
    """See PLANNED."""
    plan_line: str = ""
    """Why `plan` can say nothing of it, if so."""
    weights: int = 0
    """In the tiny model."""
    seconds: float = 0.0

    @property
    def only_rounding(self) -> bool:
        """Whether plain PEFT differs in float32 by more than LOGITS, and in float64 by no more."""
        return self.double_difference is not None and self.double_difference <= LOGITS

    @property
    def wrong(self) -> str:
        """What is not as it must be; empty where all is."""
        faults = []
        if self.peft_difference is not None and not (self.peft_difference <= LOGITS or self.only_rounding):
            faults.append(f"plain PEFT differs by {self.peft_difference:.1e}")
        if self.merged_difference is not None and not self.merged_difference <= LOGITS:
            faults.append(f"the merged model differs by {self.merged_difference:.1e}")
        if self.score_difference is not None and not self.score_difference <= NATS:
            faults.append(f"scores differ by {self.score_difference:.1e} nats")
        if self.plan_difference is not None and not self.plan_difference <= PLANNED:
            faults.append(f"the plan differs by {self.plan_difference:.0%}")
        if self.moved is not None and not self.moved > 0:
            faults.append("the adapter changes nothing")
        return "; ".join(faults)


def read_map(record: Mapping[str, Any]) -> list[Verdict]:
    """Read the verdicts of a saved map.

    Raises:
        InputError: it is none.
    """
    return [Verdict.from_mapping(one, where="map") for one in record.get("verdicts", [])]
