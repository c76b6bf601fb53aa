"""Retain terms: one number an example, smaller when the model keeps what it knew.

Symbols: x prompt, y completion with tokens y_1 ... y_T, p_t(v) = p(v | x, y_<t) the policy's and p_ref,t(v) the
reference's probability of token v.
"""

from dataclasses import dataclass

from unlora.losses.inputs import RetainInputs, required
from unlora.losses.steering import RetainHiddenStates
from unlora.losses.term import RetainTerm
from unlora.shapes import PerExample


@dataclass(frozen=True)
class RetainNLL(RetainTerm):
    """-(1/T) sum_t log p_t(y_t): the negative log-likelihood per completion token, in nats."""

    name = "nll"
    summary = "Negative log-likelihood of the retain set."

    def __call__(self, inputs: RetainInputs) -> PerExample:
        return -inputs.predictions.mean_log_probs()


@dataclass(frozen=True)
class RetainKL(RetainTerm):
    """(1/T) sum_t sum_v p_ref,t(v) log(p_ref,t(v) / p_t(v)): the divergence from the reference, in nats a token.

    0, with gradient 0, as long as the policy predicts what the reference does. Where a completion was learnt by heart
    the reference is sure of every token, and tells little; of the prompt's tokens it is not, and tells more.
    Source: Maini et al. 2024, TOFU (arXiv 2401.06121), section 3. TOFU and OpenUnlearning average over prompts and
    padding too; here over completion tokens, or over both with `prompts`.
    """

    name = "kl"
    summary = "Kullback-Leibler divergence of the policy from the reference on the retain set."
    paper = "arXiv 2401.06121"
    needs = frozenset({"reference"})
    prompts: bool = False

    def __call__(self, inputs: RetainInputs) -> PerExample:
        reference = required(inputs.reference, "reference").scored_log_softmax().detach()
        probs = reference.exp()
        log_ratio = (reference - inputs.predictions.scored_log_softmax()).masked_fill(probs == 0, 0.0)
        return inputs.predictions.mean_over_tokens((probs * log_ratio).sum(dim=-1))


RETAIN_TERMS: dict[str, type[RetainTerm]] = {term.name: term for term in (RetainNLL, RetainKL, RetainHiddenStates)}
