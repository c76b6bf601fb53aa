"""What a model still knows of the forget set and of people whom it was to keep."""

from typing import NamedTuple

import numpy
from transformers import PreTrainedModel

from unlora.data.tokenise import TokenisedExample
from unlora.studies.engine import Row
from unlora.studies.small_world import probabilities


class Known(NamedTuple):
    """Mean probability of the answers."""

    forget: float
    held_out: float


class Questions(NamedTuple):
    """What is asked."""

    forget: list[TokenisedExample]
    held_out: list[TokenisedExample]
    pad_token_id: int

    def ask(self, model: PreTrainedModel) -> Known:
        """Ask both sets."""
        found = (probabilities(model, examples, self.pad_token_id) for examples in (self.forget, self.held_out))
        return Known(*(float(numpy.mean(one)) for one in found))


def told(found: Known, before: Known, after: Known) -> Row:
    """What was forgotten and kept: shares of the way back to before the forget set was learnt, and of the target."""
    return {
        "forget_probability": found.forget,
        "held_out_probability": found.held_out,
        "forgotten": (after.forget - found.forget) / (after.forget - before.forget),
        "kept": found.held_out / after.held_out,
        "before_forget_probability": before.forget,
        "target_forget_probability": after.forget,
        "before_held_out_probability": before.held_out,
        "target_held_out_probability": after.held_out,
    }
