"""Scores made by hand: no model, probabilities that can be worked out on paper."""

import dataclasses
import math
from typing import Any

from unlora.suites.scores import ModelScores
from unlora.suites.tofu.scores import ExampleScore

BLANK = ExampleScore(
    source="made by hand",
    question="Where was Mira born?",
    answer="In Bergen.",
    question_sha256="0",
    token_count=4,
    mean_log_prob=math.log(0.5),
    probability=0.5,
    exact_memorisation=0.75,
    extraction_strength=0.25,
    generated="In Oslo.",
    rouge_l_recall=0.5,
    paraphrased_log_prob=math.nan,
    perturbed_log_probs=(),
)


def made_score(number: int = 0, *, right: float | None = None, wrong: tuple[float, ...] = (), **fields: Any):
    """One example; `right` and `wrong` are the probabilities of the paraphrase and of the perturbed answers."""
    return dataclasses.replace(
        BLANK,
        **{
            "question_sha256": str(number),
            "paraphrased_log_prob": math.nan if right is None else math.log(right),
            "perturbed_log_probs": tuple(map(math.log, wrong)),
            **fields,
        },
    )


def made_model(**sets: list[ExampleScore]) -> ModelScores:
    return ModelScores({name: tuple(examples) for name, examples in sets.items()}, {"max_new_tokens": 32})


def model_with_ratios(ratios: list[float]) -> ModelScores:
    """A forget set whose truth ratios are `ratios` (each below 10)."""
    examples = [made_score(number, right=0.1, wrong=(0.1 * ratio,)) for number, ratio in enumerate(ratios)]
    return made_model(forget=examples)
