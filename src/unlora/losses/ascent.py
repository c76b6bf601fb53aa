"""Forget terms that ascend the negative log-likelihood of the answer, each token with a weight.

Symbols: x prompt, y completion with tokens y_1 ... y_T, p_t = p(y_t | x, y_<t) under the policy, sg[.] no gradient.
"""

from dataclasses import dataclass

from unlora.losses.inputs import ForgetInputs
from unlora.losses.term import ForgetTerm, refuse_if_negative
from unlora.shapes import PerExample


@dataclass(frozen=True)
class GradientAscent(ForgetTerm):
    """(1/T) sum_t log p_t: minimising it ascends the negative log-likelihood.

    Unbounded below: without a retain term or early stopping the model falls apart.
    Source: Jang et al. 2022 (arXiv 2210.01504), here per token.
    """

    name = "ga"
    summary = "Gradient ascent: raise the negative log-likelihood of the forget set."
    paper = "arXiv 2210.01504"

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        return inputs.predictions.mean_log_probs()


@dataclass(frozen=True)
class WeightedAscent(ForgetTerm):
    """(1/T) sum_t sg[p_t^beta] log p_t: ascent that lets go of tokens that are forgotten already (WGA).

    With a gradient through the weight the push would turn round below log p_t = -1/beta. beta = 0 is gradient ascent.
    Source: Wang et al. 2025 (arXiv 2502.19301), where beta is called alpha.
    """

    name = "wga"
    summary = "Weighted gradient ascent: each token counts as much as the model still knows it."
    paper = "arXiv 2502.19301"

    beta: float = 1.0
    """Exponent of the weight, >= 0: how soon a token is let go."""

    def __post_init__(self) -> None:
        refuse_if_negative(self.name, beta=self.beta)

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        log_probs = inputs.predictions.scored_log_probs()
        weights = log_probs.detach().exp() ** self.beta
        return inputs.predictions.mean_over_tokens(weights * log_probs)


@dataclass(frozen=True)
class SatImp(ForgetTerm):
    """(1/T) sum_t sg[p_t^beta1 (1 - p_t)^beta2] log p_t: ascent weighted by saturation and importance.

    The first factor lets go of what is forgotten, the second spares what is known by heart, where p_t is near 1.
    beta2 = 0 is weighted ascent, beta1 = beta2 = 0 is gradient ascent.
    Source: Yang et al. 2025 (arXiv 2505.11953).
    """

    name = "satimp"
    summary = "Ascent on tokens that are neither forgotten yet nor certain: weights p^beta1 (1 - p)^beta2."
    paper = "arXiv 2505.11953"

    beta1: float = 5.0
    """Exponent of p_t, >= 0."""
    beta2: float = 1.0
    """Exponent of 1 - p_t, >= 0."""

    def __post_init__(self) -> None:
        refuse_if_negative(self.name, beta1=self.beta1, beta2=self.beta2)

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        log_probs = inputs.predictions.scored_log_probs()
        probs = log_probs.detach().exp()
        weights = probs**self.beta1 * (1 - probs) ** self.beta2
        return inputs.predictions.mean_over_tokens(weights * log_probs)
