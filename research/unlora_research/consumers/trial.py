"""What one program found of the answers."""

from typing import NamedTuple

from unlora.consumers.answers import LogProbs


class Tried(NamedTuple):
    """One form of one run in one program."""

    form: str
    """What was handed over, and on what base."""
    found: list[LogProbs]
    """Log-probability of each token of each answer; of each answer alone where `whole`."""
    whole: bool = False
    """Whether the program says one number an answer, the mean over its tokens."""
