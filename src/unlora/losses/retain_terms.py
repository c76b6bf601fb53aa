"""Retain terms: one number an example, smaller when the model keeps what it knew."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from unlora.losses.log_probs import Predictions
from unlora.shapes import PerExample


class RetainTerm(ABC):
    """What is minimised on the retain set."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def __call__(self, predictions: Predictions) -> PerExample:
        """Score each example of the retain set."""


@dataclass(frozen=True)
class RetainNLL(RetainTerm):
    """-(1/T) sum_t log p(y_t | x, y_<t): the negative log-likelihood per completion token, in nats."""

    name = "nll"
    summary = "Negative log-likelihood of the retain set."

    def __call__(self, predictions: Predictions) -> PerExample:
        return -predictions.mean_log_probs()


RETAIN_TERMS: dict[str, type[RetainTerm]] = {term.name: term for term in (RetainNLL,)}
