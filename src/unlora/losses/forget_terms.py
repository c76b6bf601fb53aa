"""Forget terms: one number an example, smaller when the model knows its completion less.

Symbols: x prompt, y completion with tokens y_1 ... y_T, p the policy's and p_ref the reference model's probability.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, where
from torch.nn.functional import logsigmoid

from unlora.errors import InputError
from unlora.losses.log_probs import Predictions
from unlora.shapes import PerExample


class ForgetTerm(ABC):
    """What is minimised on the forget set. Subclass it as a frozen dataclass to bring your own."""

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    needs_reference: ClassVar[bool]
    """True when the term compares with the reference model."""
    needs_retain: ClassVar[bool]
    """True when the source always pairs the term with a retain term."""

    @abstractmethod
    def __call__(self, predictions: Predictions, reference_log_probs: PerExample | None) -> PerExample:
        """Score each example.

        Args:
            predictions: of the policy, on forget examples.
            reference_log_probs: the reference model's `sequence_log_probs` of the same examples; None when not needed.
        """


@dataclass(frozen=True)
class GradientAscent(ForgetTerm):
    """(1/T) sum_t log p(y_t | x, y_<t): minimising it ascends the negative log-likelihood.

    Unbounded below: without a retain term or early stopping the model falls apart.
    Source: Jang et al. 2022 (arXiv 2210.01504), here per token.
    """

    name = "ga"
    summary = "Gradient ascent: raise the negative log-likelihood of the forget set."
    paper = "arXiv 2210.01504"
    needs_reference = False
    needs_retain = False

    def __call__(self, predictions: Predictions, reference_log_probs: PerExample | None) -> PerExample:
        return predictions.mean_log_probs()


@dataclass(frozen=True)
class NPO(ForgetTerm):
    """-(2/beta) log sigmoid(-beta log(p(y | x) / p_ref(y | x))), on whole completions (sums over tokens).

    Its gradient is gradient ascent's on log p(y | x) times 2 p^beta / (p^beta + p_ref^beta): it starts at 1, fades
    as the policy forgets, and stays at 1 as beta goes to 0.
    Source: Zhang et al. 2024 (arXiv 2404.05868), equation 3.
    """

    name = "npo"
    summary = "Negative preference optimisation: gradient ascent that fades as the completion is forgotten."
    paper = "arXiv 2404.05868"
    needs_reference = True
    needs_retain = False

    beta: float = 0.1
    """Inverse temperature, > 0: how soon the push fades."""

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise InputError(f"npo: beta must be a positive number, found {self.beta}.")

    def __call__(self, predictions: Predictions, reference_log_probs: PerExample | None) -> PerExample:
        if reference_log_probs is None:
            raise InputError(
                "npo: compares with the reference model; pass its sequence_log_probs as reference_log_probs."
            )
        log_ratio = predictions.sequence_log_probs() - reference_log_probs
        return -(2 / self.beta) * logsigmoid(-self.beta * log_ratio)


@dataclass(frozen=True)
class InvertedHinge(ForgetTerm):
    """(1/T) sum_t [1 + p(y_t | x, y_<t) - max_{v != y_t} p(v | x, y_<t)], in [0, 2].

    Bounded, and its gradient lowers the true token in favour of the runner-up alone, not of the whole vocabulary.
    Source: Cha et al. 2024, LoKU (arXiv 2408.06621).
    """

    name = "ihl"
    summary = "Inverted hinge loss: let the best other token overtake the true one; bounded in [0, 2]."
    paper = "arXiv 2408.06621"
    needs_reference = False
    needs_retain = True

    def __call__(self, predictions: Predictions, reference_log_probs: PerExample | None) -> PerExample:
        log_probs, true_tokens = predictions.scored_log_softmax(), predictions.scored_labels()
        true_prob = log_probs.gather(-1, true_tokens[:, None])[:, 0].exp()
        return predictions.mean_over_tokens(1 + true_prob - _best_other(log_probs, true_tokens).exp())


def _best_other(log_probs: Tensor, true_tokens: Tensor) -> Tensor:
    """Log-probability of the likeliest token but the true one: the first, or the second where the first is true."""
    best, tokens = log_probs.topk(2, dim=-1)
    return where(tokens[:, 0] == true_tokens, best[:, 1], best[:, 0])


FORGET_TERMS: dict[str, type[ForgetTerm]] = {term.name: term for term in (GradientAscent, NPO, InvertedHinge)}
