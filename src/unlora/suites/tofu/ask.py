"""Ask a model everything once, set by set: one pass over all answers, one pass of greedy generation."""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unlora.data.long_text import in_pieces
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.metrics import exact_memorisation, extraction_strength, rouge_l_recall, rouge_l_recall_ascii
from unlora.models.score import CompletionScore
from unlora.models.wrapping import CausalModel
from unlora.suites.questioner import Questioner
from unlora.suites.suite import Asked, Progress
from unlora.suites.tofu.protocols import Protocol, tokeniser_for
from unlora.suites.tofu.scores import ExampleScore

SHARED_BY_PROTOCOLS = ("name", "max_examples", "overridden")
"""What decides which examples are asked, not how one is: no reason to ask it again."""


class TofuMeans(NamedTuple):
    """What beside the questions it takes to ask them."""

    tokeniser: ExampleTokeniser
    protocol: Protocol


def prepare_sets(sets: Mapping[str, ExampleSet], tokeniser: ExampleTokeniser, protocol: Protocol) -> Asked:
    """Turn sets into questions.

    Args:
        sets: examples by role: forget, retain, real_authors, world_facts; those there are. A plain text beyond the
            length limit is asked in pieces, each scored as an example.
        tokeniser: the same for every model that is to be compared; `protocol` may cut shorter than it does.
        protocol: how to ask; every example of `sets` is asked, however many it names.

    Raises:
        InputError: an example that cannot be tokenised, with its line.
    """
    tokeniser = tokeniser_for(protocol, tokeniser)
    asked = {
        name: [_tokenise(example, tokeniser) for example in in_pieces(examples, tokeniser)]
        for name, examples in sets.items()
    }
    how = {**protocol.to_json(), "template": tokeniser.describe(), "decoding": "greedy"}
    return Asked(
        asked,
        protocol=how | {"sets": {name: _describe_set(sets[name], questions) for name, questions in asked.items()}},
        deciding={key: value for key, value in how.items() if key not in SHARED_BY_PROTOCOLS},
        means=TofuMeans(tokeniser, protocol),
    )


@dataclass(frozen=True)
class SetQuestion:
    """An example and the tokens of every answer to it."""

    example: Example
    answer: TokenisedExample
    paraphrase: TokenisedExample | None
    perturbed: tuple[TokenisedExample, ...]
    prompt_ids: tuple[int, ...]

    @property
    def source(self) -> str:
        """Where the example came from."""
        return self.example.source

    @property
    def identity(self) -> tuple[str, int]:
        """As of its score."""
        return question_sha256(self.example), len(self.answer.input_ids) - self.answer.prompt_length

    @property
    def content(self) -> list[Any]:
        """Hashes of texts say what is asked, tokens how the tokenizer, its template and the limit turned it out."""
        return [question_sha256(self.example), *map(_sequence, self.answers)]

    @property
    def answers(self) -> list[TokenisedExample]:
        """Every answer that is scored."""
        return [self.answer, *([self.paraphrase] if self.paraphrase else []), *self.perturbed]

    @property
    def has_prompt(self) -> bool:
        """Whether there is something for the model to answer."""
        return self.example.prompt != ""

    @property
    def has_end_token(self) -> bool:
        """Whether the last scored token ends the answer."""
        return not self.answer.truncated and self.example.shape != "text"


@dataclass(frozen=True)
class _Answers:
    """What the model said: the likelihood of every sequence, and its own text after every prompt."""

    likelihoods: Mapping[tuple[tuple[int, ...], int], CompletionScore]
    texts: Mapping[tuple[int, ...], str]

    def score(self, question: SetQuestion, protocol: Protocol) -> ExampleScore:
        example = question.example
        likelihood = self.likelihoods[_sequence(question.answer)]
        mean_log_prob = self._log_prob(question.answer)
        lost = math.isnan(mean_log_prob)  # a model that gives no numbers has no most likely token either
        matches = likelihood.argmax_match
        if question.has_end_token and not protocol.end_token_in_memorisation:
            matches = matches[:-1]
        generated = self.texts[question.prompt_ids].strip() if question.has_prompt else None
        recall = rouge_l_recall if protocol.words == "any script" else rouge_l_recall_ascii
        return ExampleScore(
            source=example.source,
            question=example.prompt,
            answer=example.completion,
            question_sha256=question_sha256(example),
            token_count=len(likelihood.token_log_probs),
            mean_log_prob=mean_log_prob,
            probability=math.exp(mean_log_prob),
            exact_memorisation=math.nan if lost else exact_memorisation(matches),
            extraction_strength=math.nan if lost else extraction_strength(matches),
            generated=generated,
            rouge_l_recall=math.nan if generated is None or lost else recall(generated, example.completion),
            paraphrased_log_prob=math.nan if question.paraphrase is None else self._log_prob(question.paraphrase),
            perturbed_log_probs=tuple(self._log_prob(answer) for answer in question.perturbed),
        )

    def _log_prob(self, answer: TokenisedExample) -> float:
        value = self.likelihoods[_sequence(answer)].mean_log_prob
        return value if math.isfinite(value) else math.nan


def ask_set(
    model: CausalModel, means: TofuMeans, questions: Sequence[SetQuestion], batch_size: int, progress: Progress | None
) -> list[ExampleScore]:
    """Score the answer, the paraphrase and the wrong answers of every question, and let the model answer itself."""
    # A sequence that occurs twice (an answer that is its own paraphrase) is scored once.
    sequences = list(dict.fromkeys(_sequence(answer) for question in questions for answer in question.answers))
    tokeniser, protocol = means
    asks = Questioner(model, tokeniser.tokenizer, tokeniser.pad_token_id, batch_size, progress)
    likelihoods = asks.score(sequences, "scoring answers")
    prompts = list(dict.fromkeys(question.prompt_ids for question in questions if question.has_prompt))
    limits = [protocol.generation_limit(len(prompt)) for prompt in prompts]
    known = dict(zip(sequences, likelihoods, strict=True))
    begun = _beginnings(questions, known)
    texts = asks.answer(prompts, limits, "generating answers", [begun.get(prompt, ()) for prompt in prompts])
    answers = _Answers(known, dict(zip(prompts, texts, strict=True)))
    return [answers.score(question, protocol) for question in questions]


def _beginnings(
    questions: Sequence[SetQuestion], known: Mapping[tuple[tuple[int, ...], int], CompletionScore]
) -> dict[tuple[int, ...], tuple[int, ...]]:
    """How each prompt's own answer begins, by what was seen when the given one was scored.

    As long as every token of the given answer is the most probable one, the model would write it itself: of what it
    knows by heart nothing is left to write (`extraction_strength` rests on the same).
    """
    begun: dict[tuple[int, ...], tuple[int, ...]] = {}
    for question in questions:
        input_ids, prompt_length = _sequence(question.answer)
        likelihood = known[input_ids, prompt_length]
        if (
            question.has_prompt
            and question.prompt_ids == input_ids[:prompt_length]
            and math.isfinite(likelihood.mean_log_prob)
        ):
            first_choices = itertools.takewhile(bool, likelihood.argmax_match)
            answer = input_ids[prompt_length : prompt_length + sum(1 for _ in first_choices)]
            begun[question.prompt_ids] = max(answer, begun.get(question.prompt_ids, ()), key=len)
    return begun


def _tokenise(example: Example, tokeniser: ExampleTokeniser) -> SetQuestion:
    paraphrase = example.paraphrased_answer
    if paraphrase is None and example.perturbed_answers:
        paraphrase = example.completion  # as TOFU does for real authors and world facts
    return SetQuestion(
        example,
        tokeniser.encode(example),
        None if paraphrase is None else tokeniser.encode(example, completion=paraphrase),
        tuple(tokeniser.encode(example, completion=answer) for answer in example.perturbed_answers),
        tokeniser.prompt_ids(example),
    )


def _sequence(answer: TokenisedExample) -> tuple[tuple[int, ...], int]:
    return answer.input_ids, answer.prompt_length


def question_sha256(example: Example) -> str:
    """Hash the question and every answer that is scored."""
    asked = [example.content_sha256(), example.paraphrased_answer, list(example.perturbed_answers)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _describe_set(examples: ExampleSet, questions: list[SetQuestion]) -> dict[str, Any]:
    truncated = sum(any(answer.truncated for answer in question.answers) for question in questions)
    used = sum(len(question.answer.input_ids) for question in questions)
    return {
        "name": examples.name,
        "document_count": len(examples),
        "example_count": len(questions),
        "truncated_count": truncated,
        "token_count": used + sum(question.answer.lost_count for question in questions),
        "used_token_count": used,
        "sha256": examples.sha256(),
    }
