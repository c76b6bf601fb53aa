"""Ask a model everything once, set by set: one pass over all answers, one pass of greedy generation."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from unlora import processes
from unlora.data.long_text import in_pieces
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.evaluation.cache import ScoreCache
from unlora.evaluation.protocols import PROTOCOLS, Protocol, tokeniser_for
from unlora.evaluation.scores import ExampleScore, ModelScores
from unlora.metrics import exact_memorisation, extraction_strength, rouge_l_recall, rouge_l_recall_ascii
from unlora.models.generate import generate_greedy
from unlora.models.score import CompletionScore, score_completions
from unlora.models.wrapping import CausalModel

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""

SHARED_BY_PROTOCOLS = ("name", "max_examples", "overridden")
"""What decides which examples are asked, not how one is: no reason to ask it again."""


def score_model(
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    sets: Mapping[str, ExampleSet],
    *,
    protocol: Protocol = PROTOCOLS["unlora"],
    max_new_tokens: int | None = None,
    batch_size: int,
    cache: ScoreCache | None = None,
    progress: Progress | None = None,
) -> ModelScores:
    """Score the answer, the paraphrase and the wrong answers of every example, and let the model answer itself.

    Several processes share the questions, and all of them get all scores.

    Args:
        model: plain or with an adapter; adapters that are switched off stay off.
        tokeniser: the same for every model that is to be compared; `protocol` may cut shorter than it does.
        sets: examples by role: forget, retain, real_authors, world_facts; those there are. A plain text beyond the
            length limit is asked in pieces, each scored as an example.
        protocol: how to ask; every example of `sets` is asked, however many it names.
        max_new_tokens: longest generated answer, in place of the protocol's; generation stops at an end token.
        batch_size: sequences in one forward pass; results do not depend on it beyond floating-point rounding.
        cache: of exactly this model as it is now: a set that is there is not asked again.
        progress: told after every batch.

    Raises:
        InputError: an example that cannot be tokenised, with its line.
    """
    if max_new_tokens is not None:
        protocol = dataclasses.replace(protocol, max_new_tokens=max_new_tokens)
    tokeniser = tokeniser_for(protocol, tokeniser)
    asked = {
        name: [_tokenise(example, tokeniser) for example in in_pieces(examples, tokeniser)]
        for name, examples in sets.items()
    }
    how = {
        **protocol.to_json(),
        "template": tokeniser.describe(),
        "decoding": "greedy",
        "batch_size": batch_size,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    scored: dict[str, tuple[ExampleScore, ...]] = {}
    for name, questions in asked.items():
        key = _cache_key(cache, questions, how) if cache is not None else ""
        found = processes.from_main(partial(cache.load, key)) if cache is not None else None
        if found is None:
            mine = processes.share(questions)
            answers = _ask(model, tokeniser, mine, protocol, batch_size, _within(name, progress))
            found = tuple(processes.join_shares([answers.score(question, protocol) for question in mine]))
            if cache is not None:
                processes.on_main(partial(cache.save, key, found))
        scored[name] = tuple(
            dataclasses.replace(score, source=question.example.source)  # the cached one may lie in another file
            for score, question in zip(found, questions, strict=True)
        )
    described = {name: _describe_set(sets[name], questions) for name, questions in asked.items()}
    return ModelScores(scored, {**how, "sets": described})


@dataclass(frozen=True)
class _Question:
    """An example and the tokens of every answer to it."""

    example: Example
    answer: TokenisedExample
    paraphrase: TokenisedExample | None
    perturbed: tuple[TokenisedExample, ...]
    prompt_ids: tuple[int, ...]

    @property
    def answers(self) -> list[TokenisedExample]:
        return [self.answer, *([self.paraphrase] if self.paraphrase else []), *self.perturbed]

    @property
    def has_prompt(self) -> bool:
        return self.example.prompt != ""

    @property
    def has_end_token(self) -> bool:
        return not self.answer.truncated and self.example.shape != "text"


@dataclass(frozen=True)
class _Answers:
    """What the model said: the likelihood of every sequence, and its own text after every prompt."""

    likelihoods: Mapping[tuple[tuple[int, ...], int], CompletionScore]
    texts: Mapping[tuple[int, ...], str]

    def score(self, question: _Question, protocol: Protocol) -> ExampleScore:
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
            question_sha256=_question_sha256(example),
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


def _ask(
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    questions: Sequence[_Question],
    protocol: Protocol,
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
        max_new_tokens=[protocol.generation_limit(len(prompt)) for prompt in prompts],
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
        tokeniser.prompt_ids(example),
    )


def _sequence(answer: TokenisedExample) -> tuple[tuple[int, ...], int]:
    return answer.input_ids, answer.prompt_length


def _cache_key(cache: ScoreCache, questions: Sequence[_Question], how: Mapping[str, Any]) -> str:
    # Hashes of texts say what was asked, tokens how the tokenizer, its template and the length limit turned it out.
    asked = [[_question_sha256(one.example), *map(_sequence, one.answers)] for one in questions]
    deciding = {key: value for key, value in how.items() if key not in SHARED_BY_PROTOCOLS}
    return cache.key(hashlib.sha256(json.dumps(asked).encode()).hexdigest(), deciding)


def _question_sha256(example: Example) -> str:
    asked = [example.content_sha256(), example.paraphrased_answer, list(example.perturbed_answers)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _describe_set(examples: ExampleSet, questions: list[_Question]) -> dict[str, Any]:
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


def _within(name: str, progress: Progress | None) -> Progress | None:
    """Name the set in front of what is being done."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{name}: {stage}", done, total)


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
