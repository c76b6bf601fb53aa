"""Forget terms that say what to predict instead: another token, another distribution, a refusal.

Symbols: x prompt, y completion with tokens y_1 ... y_T, p_t(v) = p(v | x, y_<t) the policy's probability of token v,
sg[.] no gradient.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unlora.losses.inputs import ForgetInputs, required
from unlora.losses.log_probs import NOT_SCORED, Predictions
from unlora.losses.term import ForgetTerm, refuse_if_negative
from unlora.shapes import PerExample


@dataclass(frozen=True)
class InvertedHinge(ForgetTerm):
    """(1/T) sum_t [1 + p_t(y_t) - max_{v != y_t} p_t(v)], in [0, 2].

    Bounded, and its gradient lowers the true token in favour of the runner-up alone, not of the whole vocabulary.
    Source: Cha et al. 2024, LoKU (arXiv 2408.06621).
    """

    name = "ihl"
    summary = "Inverted hinge loss: let the best other token overtake the true one; bounded in [0, 2]."
    paper = "arXiv 2408.06621"
    needs_retain = True

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        log_probs, true_tokens = inputs.predictions.scored_log_softmax(), inputs.predictions.scored_labels()
        # Both are taken at once, since each would have a gradient of the whole vocabulary's size.
        two = torch.stack([true_tokens, _best_other(log_probs, true_tokens)], dim=1)
        true_prob, other_prob = log_probs.gather(-1, two).exp().unbind(dim=1)
        return inputs.predictions.mean_over_tokens(1 + true_prob - other_prob)


@dataclass(frozen=True)
class RefusalNLL(ForgetTerm):
    """-(1/T) sum_t log p(z_t | x, z_<t) of a refusal z: learn to say that one does not know (IDK).

    Source: Maini et al. 2024, TOFU (arXiv 2401.06121). There refusals and retain answers share one mean over tokens.
    """

    name = "idk"
    summary = "Negative log-likelihood of a refusal in place of the answer."
    paper = "arXiv 2401.06121"
    completion = "refusal"

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        return -inputs.predictions.mean_log_probs()


@dataclass(frozen=True)
class Undial(ForgetTerm):
    """-(1/T) sum_t sum_v q_t(v) log p_t(v), q_t = softmax(l_t - strength [v = y_t]), l_t the reference's logits.

    Self-distillation from the reference with the true token's logit lowered: bounded below by the entropy of q.
    Source: Dong et al. 2024 (arXiv 2402.10052), where the strength is called gamma.
    """

    name = "undial"
    summary = "Distil the reference with the true token's logit lowered."
    paper = "arXiv 2402.10052"
    needs = frozenset({"reference"})

    strength: float = 10.0
    """What is taken from the true token's logit, >= 0, in nats."""

    def __post_init__(self) -> None:
        refuse_if_negative(self.name, strength=self.strength)

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        teacher = required(inputs.reference, "reference").scored_log_softmax().detach()
        true_tokens = inputs.predictions.scored_labels()[:, None]
        lowered = teacher.scatter(-1, true_tokens, teacher.gather(-1, true_tokens) - self.strength)
        return inputs.predictions.mean_cross_entropy(lowered.softmax(dim=-1))


@dataclass(frozen=True)
class CrossEntropyUnlearning(ForgetTerm):
    """-(1/T') sum_t sum_v sg[q_t(v)] log p_t(v), q_t(v) = p_t(v) / (1 - p_t(y_t)) for v != y_t and 0 for y_t (CE-U).

    The target is the policy's own prediction with the true token ruled out: its gradient on the logits, p_t - q_t, does
    not vanish for a token that is known by heart. The first tokens of the answer, which name no fact yet, are left out
    (T' remain), but never all of them.
    Source: Yang 2025 (arXiv 2503.01224); the first token is left out in a footnote.
    """

    name = "ce_u"
    summary = "Cross-entropy against the model's own prediction with the true token ruled out."
    paper = "arXiv 2503.01224"

    skip_tokens: int = 1
    """First tokens of the answer that are left out, >= 0; the last one always counts."""

    def __post_init__(self) -> None:
        refuse_if_negative(self.name, skip_tokens=self.skip_tokens)

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        predictions = _without_first(inputs.predictions, self.skip_tokens)
        log_probs = predictions.scored_log_softmax().detach()
        others = log_probs.scatter(-1, predictions.scored_labels()[:, None], -torch.inf)
        return predictions.mean_cross_entropy(others.softmax(dim=-1))


def _best_other(log_probs: Tensor, true_tokens: Tensor) -> Tensor:
    """Tell the likeliest token but the true one: the first, or the second where the first is true."""
    tokens = log_probs.detach().topk(2, dim=-1).indices
    return torch.where(tokens[:, 0] == true_tokens, tokens[:, 1], tokens[:, 0])


def _without_first(predictions: Predictions, count: int) -> Predictions:
    places = predictions.mask.cumsum(dim=1)
    kept = (places > count) | (places == predictions.token_counts[:, None])
    logits = predictions.scored_logits[kept[predictions.mask]]
    return Predictions(logits, predictions.labels.masked_fill(~kept, NOT_SCORED))
