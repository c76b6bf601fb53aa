"""Ask a model everything once: one pass over all answers, one pass of greedy generation."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.evaluation.scores import ExampleScore, ModelScores
from unlora.metrics import exact_memorisation, extraction_strength, rouge_l_recall
from unlora.models.generate import generate_greedy
from unlora.models.score import CompletionScore, score_completions
from unlora.models.wrapping import CausalModel

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


def score_model(
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    sets: Mapping[str, ExampleSet],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> ModelScores:
    """Score the answer, the paraphrase and the wrong answers of every example, and let the model answer itself.

    Args:
        model: plain or with an adapter; adapters that are switched off stay off.
        tokeniser: the same for every model that is to be compared.
        sets: examples by role: forget, retain, real_authors, world_facts; those there are.
        max_new_tokens: longest generated answer; generation stops at an end token.
        batch_size: sequences in one forward pass; results do not depend on it beyond floating-point rounding.
        progress: told after every batch.

    Raises:
        InputError: an example that cannot be tokenised, with its line.
    """
    asked = {name: [_tokenise(example, tokeniser) for example in examples] for name, examples in sets.items()}
    everything = [question for questions in asked.values() for question in questions]
    answers = _ask(model, tokeniser, everything, max_new_tokens, batch_size, progress)
    protocol = {
        "template": tokeniser.describe(),
        "decoding": "greedy",
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
        "dtype": str(model.dtype).removeprefix("torch."),
        "sets": {name: _describe_set(sets[name], questions) for name, questions in asked.items()},
    }
    return ModelScores(
        {name: tuple(answers.score(question) for question in questions) for name, questions in asked.items()}, protocol
    )


@dataclass(frozen=True)
class _Question:
    """An example and the tokens of every answer to it."""

    example: Example
    answer: TokenisedExample
    paraphrase: TokenisedExample | None
    perturbed: tuple[TokenisedExample, ...]

    @property
    def answers(self) -> list[TokenisedExample]:
        return [self.answer, *([self.paraphrase] if self.paraphrase else []), *self.perturbed]

    @property
    def has_prompt(self) -> bool:
        return self.example.prompt != ""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.answer.input_ids[: self.answer.prompt_length]


@dataclass(frozen=True)
class _Answers:
    """What the model said: the likelihood of every sequence, and its own text after every prompt."""

    likelihoods: Mapping[tuple[tuple[int, ...], int], CompletionScore]
    texts: Mapping[tuple[int, ...], str]

    def score(self, question: _Question) -> ExampleScore:
        example = question.example
        likelihood = self.likelihoods[_sequence(question.answer)]
        mean_log_prob = self._log_prob(question.answer)
        lost = math.isnan(mean_log_prob)  # a model that gives no numbers has no most likely token either
        generated = self.texts[question.prompt_ids].strip() if question.has_prompt else None
        return ExampleScore(
            source=example.source,
            question=example.prompt,
            answer=example.completion,
            question_sha256=_question_sha256(example),
            token_count=len(likelihood.token_log_probs),
            mean_log_prob=mean_log_prob,
            probability=math.exp(mean_log_prob),
            exact_memorisation=math.nan if lost else exact_memorisation(likelihood.argmax_match),
            extraction_strength=math.nan if lost else extraction_strength(likelihood.argmax_match),
            generated=generated,
            rouge_l_recall=math.nan if generated is None or lost else rouge_l_recall(generated, example.completion),
            paraphrased_log_prob=math.nan if question.paraphrase is None else self._log_prob(question.paraphrase),
            perturbed_log_probs=tuple(self._log_prob(answer) for answer in question.perturbed),
        )

    def _log_prob(self, answer: TokenisedExample) -> float:
        value = self.likelihoods[_sequence(answer)].mean_log_prob
        return value if math.isfinite(value) else math.nan


def _ask(
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    questions: Sequence[_Question],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None,
) -> _Answers:
    # A sequence that occurs twice (an answer that is its own paraphrase) is scored once.
    sequences = list(dict.fromkeys(_sequence(answer) for question in questions for answer in question.answers))
    pad_token_id = tokeniser.pad_token_id
    likelihoods = score_completions(
        model,
        sequences,
        pad_token_id=pad_token_id,
        batch_size=batch_size,
        progress=_counter(progress, "scoring answers", len(sequences)),
    )
    prompts = list(dict.fromkeys(question.prompt_ids for question in questions if question.has_prompt))
    texts = generate_greedy(
        model,
        prompts,
        tokenizer=tokeniser.tokenizer,
        pad_token_id=pad_token_id,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=_counter(progress, "generating answers", len(prompts)),
    )
    return _Answers(dict(zip(sequences, likelihoods, strict=True)), dict(zip(prompts, texts, strict=True)))


def _tokenise(example: Example, tokeniser: ExampleTokeniser) -> _Question:
    paraphrase = example.paraphrased_answer
    if paraphrase is None and example.perturbed_answers:
        paraphrase = example.completion  # as TOFU does for real authors and world facts
    return _Question(
        example,
        tokeniser.encode(example),
        None if paraphrase is None else tokeniser.encode(example, completion=paraphrase),
        tuple(tokeniser.encode(example, completion=answer) for answer in example.perturbed_answers),
    )


def _sequence(answer: TokenisedExample) -> tuple[tuple[int, ...], int]:
    return answer.input_ids, answer.prompt_length


def _question_sha256(example: Example) -> str:
    asked = [example.content_sha256(), example.paraphrased_answer, list(example.perturbed_answers)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _describe_set(examples: ExampleSet, questions: list[_Question]) -> dict[str, Any]:
    truncated = sum(any(answer.truncated for answer in question.answers) for question in questions)
    return {
        "name": examples.name,
        "example_count": len(examples),
        "truncated_count": truncated,
        "sha256": examples.sha256(),
    }


def _counter(progress: Progress | None, stage: str, total: int) -> Callable[[int], None] | None:
    """Turn the count of each batch into a running count."""
    if progress is None:
        return None
    done = 0

    def count(batch_count: int) -> None:
        nonlocal done
        done += batch_count
        progress(stage, done, total)

    return count
