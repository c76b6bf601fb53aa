"""What every term is: a frozen dataclass that scores each example of a batch and says what it needs to do so."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from unlora.errors import InputError
from unlora.losses.inputs import ForgetInputs, Need, RetainInputs
from unlora.shapes import PerExample


class ForgetTerm(ABC):
    """What is minimised on the forget set. Subclass it as a frozen dataclass to bring your own."""

    name: ClassVar[str]
    """What it is called in settings and records."""
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """Fields of `ForgetInputs` that it reads besides `predictions`."""
    completion: ClassVar[Literal["answer", "refusal"]] = "answer"
    """What `predictions` are of. A term that reads refusals alone spares the pass over the answers."""
    needs_retain: ClassVar[bool] = False
    """True when the source always pairs the term with a retain term."""
    block: int | None = None
    """The block behind which `hidden_states` are read, counted from 0; None for the last of the first quarter."""

    @abstractmethod
    def __call__(self, inputs: ForgetInputs) -> PerExample:
        """Score each example; what is minimised is the mean over examples."""


class RetainTerm(ABC):
    """What is minimised on the retain set. Subclass it as a frozen dataclass to bring your own."""

    name: ClassVar[str]
    """What it is called in settings and records."""
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """Fields of `RetainInputs` that it reads besides `predictions`."""
    block: int | None = None
    """The block behind which `hidden_states` are read; None for the forget term's."""
    prompts: bool = False
    """Whether the prompt's tokens are scored as the completion's are."""

    @abstractmethod
    def __call__(self, inputs: RetainInputs) -> PerExample:
        """Score each example; what is minimised is the mean over examples."""


def refuse_unless_positive(term: str, **values: float | int) -> None:
    """Refuse a parameter that must be above 0.

    Raises:
        InputError: it is not, or it is not finite.
    """
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise InputError(f"{term}: {name} must be a positive number, found {value}.")


def refuse_if_negative(term: str, **values: float | int) -> None:
    """Refuse a parameter that must not be below 0.

    Raises:
        InputError: it is, or it is not finite.
    """
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise InputError(f"{term}: {name} must be a number >= 0, found {value}.")
