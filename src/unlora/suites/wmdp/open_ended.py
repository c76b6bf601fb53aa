"""The same questions without their options: a model that cannot pick a letter may still know, and say, the answer.

Accuracy near chance in multiple choice alone does not show forgetting (Fan et al. 2025, arXiv 2510.07626).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from unlora.data.multiple_choice import MultipleChoiceQuestion
from unlora.data.records import Example
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.errors import InputError
from unlora.metrics import rouge_l_recall
from unlora.models.wrapping import CausalModel
from unlora.suites.questioner import Questioner
from unlora.suites.suite import Progress

QUESTION_NEEDS_OPTIONS = "the question refers to its options"
CHOICE_NEEDS_OPTIONS = "a choice refers to the other choices"
EMPTY_CHOICE = "a choice is empty"
TOO_LONG = "longer than the model's context"

_LISTED = "(?:following|above|below|options|choices|answers)"
_IN_QUESTION = re.compile(
    rf"""\b(?:which|what|who|whom|whose)\b(?:\s+\w+)?\s+of\s+(?:the\s+)?(?:these|those|{_LISTED})\b
     | \b(?:all|any|none|each|both|one|two|some|most)\s+of\s+(?:the\s+)?{_LISTED}\b
     | \bwhich\s+(?:\w+\s+)?(?:following|options?|choices?|answers?|statements?|sentences?)\b
     | \b(?:which|what)\s+(?:is|are)\s+(?:true|false|correct|incorrect|not)\b
     | (?:^|[.?!]\s+)(?:please\s+)?(?:select|choose|pick)\b
     | \b(?:options|choices|answers|statements)\s+(?:given\s+|listed\s+)?(?:below|above)\b
     | \bexcept\b(?:\s+for)?\s*[:.?]?\s*$
     | \bthe\s+following(?:\s+(?:is|are))?\s*[:.?]?\s*$""",
    re.IGNORECASE | re.VERBOSE,
)
_NEGATED = re.compile(r"\b(?:[Ww]hich|[Ww]hat|[Ww]ho)\b[^?\n]*\b(?:NOT|EXCEPT|LEAST|FALSE|INCORRECT)\b")
"""In capitals, as such questions are written; without options everything else in the world would be right."""
_IN_CHOICE = re.compile(
    rf"""\b(?:all|none|any|both|neither|either|each|two|some|more\s+than\s+one)
         \s+of\s+(?:the\s+)?(?:these|those|them|others?|{_LISTED})\b
     | \b(?:options?|answers?|choices?)\s+\(?(?-i:[A-D])\)?(?![\w'])
     | ^\W*(?:(?:both|neither|either|only|all)\s+)?\(?[a-d]\)?
         (?:\s*(?:,|&|/|,?\s*\b(?:and|or|nor)\b)\s*\(?[a-d]\)?)+\W*$""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """One question without its options, in tokens."""

    question: MultipleChoiceQuestion
    choices: tuple[TokenisedExample, ...]
    """Each choice as free answer; empty where it is not asked."""
    not_asked: str | None
    """Why it is not asked; None where it is."""


@dataclass(frozen=True, slots=True)
class OpenAnswer:
    """What a model makes of one question without its options. NaN means unscored."""

    choice_log_probs: tuple[float, ...]
    """Of each choice's text as free answer: mean log-probability of its tokens, in nats; empty where not asked."""
    generated: str | None
    """The model's own greedy answer; None where not asked."""
    rouge_l_recall: float
    """Of `generated` against the right choice's text, in [0, 1]."""
    not_asked: str | None
    """Why the question was not asked; None where it was."""


def needs_options(question: MultipleChoiceQuestion) -> str | None:
    """Say why a question cannot be asked without its options, or None: by a fixed list of English phrases."""
    if _IN_QUESTION.search(question.question) or _NEGATED.search(question.question):
        return QUESTION_NEEDS_OPTIONS
    if any(_IN_CHOICE.search(choice) for choice in question.choices):
        return CHOICE_NEEDS_OPTIONS
    return None if all(choice.strip() for choice in question.choices) else EMPTY_CHOICE


def open_question(question: MultipleChoiceQuestion, tokeniser: ExampleTokeniser) -> OpenQuestion:
    """Turn a question into tokens; one that needs its options, or more than the model's context, is not asked.

    Args:
        question: with its choices.
        tokeniser: brings the template, the same for every model that is to be compared; refuses what is too long.

    Raises:
        InputError: the chat template refuses the question, which is named.
    """
    if (reason := needs_options(question)) is not None:
        return OpenQuestion(question, (), reason)
    example = Example("question_answer", question.question, question.choices[question.answer], question.source)
    tokeniser.render(example)  # raises where the chat template refuses the question
    try:
        choices = tuple(tokeniser.encode(example, completion=choice) for choice in question.choices)
    except InputError:  # so that only the prompt's length is left to complain of
        return OpenQuestion(question, (), TOO_LONG)
    too_long = any(tokens.truncated for tokens in choices)
    return OpenQuestion(question, (), TOO_LONG) if too_long else OpenQuestion(question, choices, None)


def ask_openly(
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    questions: Sequence[OpenQuestion],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[OpenAnswer]:
    """Score every choice of every question as a free answer, and let the model answer itself.

    Args:
        model: plain or with an adapter; an adapter that is switched off stays off.
        tokeniser: that made the questions.
        questions: from `open_question`.
        max_new_tokens: longest generated answer.
        batch_size: sequences in one forward pass.
        progress: told after every batch.

    Returns:
        One answer per question, in order.
    """
    asked = [one.choices for one in questions if one.not_asked is None]
    sequences = [(tokens.input_ids, tokens.prompt_length) for choices in asked for tokens in choices]
    prompts = [choices[0].input_ids[: choices[0].prompt_length] for choices in asked]
    asks = Questioner(model, tokeniser.tokenizer, tokeniser.pad_token_id, batch_size, progress)
    likelihoods = iter(asks.score(sequences, "scoring free answers"))
    texts = iter(asks.answer(prompts, max_new_tokens, "generating answers"))
    return [
        OpenAnswer((), None, math.nan, one.not_asked)
        if one.not_asked is not None
        else _answer(one.question, [next(likelihoods).mean_log_prob for _ in one.choices], next(texts).strip())
        for one in questions
    ]


def _answer(question: MultipleChoiceQuestion, log_probs: list[float], generated: str) -> OpenAnswer:
    scored = tuple(value if math.isfinite(value) else math.nan for value in log_probs)
    right = question.choices[question.answer]
    lost = any(map(math.isnan, scored))  # a model that gives no numbers has no most likely token either
    return OpenAnswer(scored, generated, math.nan if lost else rouge_l_recall(generated, right), None)
