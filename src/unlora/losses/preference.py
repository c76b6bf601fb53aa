"""Forget terms of the preference family: push the answer below what the reference, or a refusal, gets.

Symbols: x prompt, y answer of T tokens, z refusal, p(y | x) the policy's and p_ref(y | x) the reference's probability
of a whole completion (products over tokens, so sums of logarithms), sigma the logistic function.
"""

import math
from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from unlora.errors import InputError
from unlora.losses.inputs import ForgetInputs, required
from unlora.losses.term import ForgetTerm, refuse_unless_positive
from unlora.shapes import PerExample


@dataclass(frozen=True)
class NPO(ForgetTerm):
    """-(2/beta) log sigma(-beta log(p(y | x) / p_ref(y | x))), on whole completions (sums over tokens).

    Its gradient is gradient ascent's on log p(y | x) times 2 p^beta / (p^beta + p_ref^beta): it starts at 1, fades
    as the policy forgets, and stays at 1 as beta goes to 0.
    Source: Zhang et al. 2024 (arXiv 2404.05868), equation 3.
    """

    name = "npo"
    summary = "Negative preference optimisation: gradient ascent that fades as the completion is forgotten."
    paper = "arXiv 2404.05868"
    needs = frozenset({"reference_log_probs"})

    beta: float = 0.1
    """Inverse temperature, > 0: how soon the push fades."""

    def __post_init__(self) -> None:
        refuse_unless_positive(self.name, beta=self.beta)

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        reference = required(inputs.reference_log_probs, "reference_log_probs")
        log_ratio = inputs.predictions.sequence_log_probs() - reference
        return -(2 / self.beta) * logsigmoid(-self.beta * log_ratio)


@dataclass(frozen=True)
class SimNPO(ForgetTerm):
    """-(2/beta) log sigma(-(beta/T) log p(y | x) - gamma): NPO per token and without a reference.

    Its gradient is gradient ascent's on (1/T) log p(y | x) times 2 sigma((beta/T) log p(y | x) + gamma).
    Source: Fan et al. 2024 (arXiv 2410.07163), equation 4. The authors' code and OpenUnlearning multiply gamma (delta
    there) by beta; both take 0 for it.
    """

    name = "simnpo"
    summary = "NPO without a reference model, on the mean over tokens instead of the sum."
    paper = "arXiv 2410.07163"

    beta: float = 4.5
    """Inverse temperature, > 0."""
    gamma: float = 0.0
    """Margin by which the answer must fall; no unit."""

    def __post_init__(self) -> None:
        refuse_unless_positive(self.name, beta=self.beta)
        if not math.isfinite(self.gamma):
            raise InputError(f"{self.name}: gamma must be a finite number, found {self.gamma}.")

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        return -(2 / self.beta) * logsigmoid(-self.beta * inputs.predictions.mean_log_probs() - self.gamma)


@dataclass(frozen=True)
class DPO(ForgetTerm):
    """-(2/beta) log sigma(beta [log(p(z | x) / p_ref(z | x)) - log(p(y | x) / p_ref(y | x))]): prefer the refusal z.

    With a refusal as likely as under the reference it is NPO.
    Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7, with a refusal as the preferred answer as in TOFU
    (arXiv 2401.06121, called IdkDPO in OpenUnlearning). The factor 2/beta is theirs, not the paper's: the gradient on
    the answer starts as large as NPO's.
    """

    name = "dpo"
    summary = "Direct preference optimisation: prefer a refusal to the answer, relative to the reference."
    paper = "arXiv 2305.18290"
    needs = frozenset({"reference_log_probs", "refusal", "refusal_reference_log_probs"})

    beta: float = 0.1
    """Inverse temperature, > 0: how soon the push fades."""

    def __post_init__(self) -> None:
        refuse_unless_positive(self.name, beta=self.beta)

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        answer = inputs.predictions.sequence_log_probs()
        answer = answer - required(inputs.reference_log_probs, "reference_log_probs")
        refusal = required(inputs.refusal, "refusal").sequence_log_probs()
        refusal = refusal - required(inputs.refusal_reference_log_probs, "refusal_reference_log_probs")
        return -(2 / self.beta) * logsigmoid(self.beta * (refusal - answer))
