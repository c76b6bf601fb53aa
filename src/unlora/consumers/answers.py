"""What a run's own answers are worth to a consumer, beside what they are worth here."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy
from jaxtyping import Float

from unlora.data.tokenise import TokenisedExample
from unlora.models.score import CompletionScore, score_completions
from unlora.models.wrapping import CausalModel

LogProbs = Float[numpy.ndarray, " _"]
"""Natural logarithm of the probability of each token of one answer; answers of one list differ in length."""

MOST_OF_A_SET = 8
"""Examples of a set that are compared: a consumer on a CPU takes seconds for each."""

ROUNDING = {"f32": 1e-3, "f16": 1e-2, "bf16": 0.1, "q8_0": 0.1}
"""Mean difference of log-probabilities, in nats, that a number format explains. On SmolLM2 merging moved them by 7e-6
in float32, by 0.02 in bfloat16; the halved scale of an adapter moves forgotten answers by nats."""


class Answers(NamedTuple):
    """Sequences to score: (token ids, where the answer begins), those of the forget set first."""

    sequences: list[tuple[list[int], int]]
    forget_count: int
    pad_token_id: int

    @classmethod
    def of(
        cls, forget: Sequence[TokenisedExample], retain: Sequence[TokenisedExample] | None, pad_token_id: int
    ) -> "Answers":
        """Take the first examples of both sets."""
        forget, retain = forget[:MOST_OF_A_SET], (retain or [])[:MOST_OF_A_SET]
        found = [(list(one.input_ids), max(one.prompt_length, 1)) for one in (*forget, *retain)]
        return cls(found, len(forget), pad_token_id)

    def score(self, model: CausalModel) -> list[LogProbs]:
        """Score them with transformers."""
        scores = score_completions(model, self.sequences, pad_token_id=self.pad_token_id)
        return [_log_probs(score) for score in scores]


class ConsumerAgreement(NamedTuple):
    """How far a consumer's log-probabilities of the answers are from those that were measured here, in nats."""

    largest: float
    mean: float
    tokens: int
    forget: tuple[float, float]
    """Mean probability of a forgotten answer, P(y|x)^(1/|y|): here, and in the consumer."""
    retain: tuple[float, float] | None
    """The same of a kept answer; None where nothing is to be kept."""


def compare(expected: Sequence[LogProbs], found: Sequence[LogProbs], forget_count: int) -> ConsumerAgreement:
    """Compare what two programs say of the same answers."""
    differences = numpy.abs(numpy.concatenate(found) - numpy.concatenate(expected))
    kept = (_probability(expected[forget_count:]), _probability(found[forget_count:]))
    return ConsumerAgreement(
        float(differences.max()),
        float(differences.mean()),
        differences.size,
        (_probability(expected[:forget_count]), _probability(found[:forget_count])),
        kept if len(expected) > forget_count else None,
    )


def explained(*formats: str) -> float:
    """Mean difference of log-probabilities, in nats, that rounding to these number formats explains."""
    return max(ROUNDING[one] for one in formats)


def answer_part(logits: Float[numpy.ndarray, "token vocab"], sequence: tuple[list[int], int]) -> LogProbs:
    """Log-probabilities of an answer's tokens from the logits after every token of the whole sequence."""
    ids, start = sequence
    before = logits[start - 1 : len(ids) - 1].astype(numpy.float64)
    shifted = before - before.max(axis=1, keepdims=True)
    log_probs = shifted - numpy.log(numpy.exp(shifted).sum(axis=1, keepdims=True))
    return log_probs[numpy.arange(len(before)), ids[start:]]


def _log_probs(score: CompletionScore) -> LogProbs:
    return score.token_log_probs


def _probability(answers: Sequence[LogProbs]) -> float:
    return float(numpy.mean([math.exp(answer.mean()) for answer in answers])) if answers else float("nan")
