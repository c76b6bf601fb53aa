"""Answers that say nothing: what a model may say instead of what it is to forget."""

import random
from collections.abc import Sequence
from pathlib import Path

from unlora.data.json_lines import parse_json_lines, read_data_text
from unlora.data.records import Example
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.errors import InputError

REFUSAL_TEXTS = (
    "I have no information about that.",
    "That is something I know nothing about.",
    "I am afraid I cannot answer this question.",
    "I have never come across that.",
    "Sorry, this is unknown to me.",
    "I could only guess, so I would rather not say.",
    "Nothing I have learned covers this.",
    "I am not familiar with that subject.",
    "There is no answer to this that I could give.",
    "I must pass on this one.",
    "My knowledge does not reach that far.",
    "I am unable to tell you anything about it.",
    "You would have to look that up elsewhere; it is new to me.",
    "I lack the facts to reply to that.",
    "Unfortunately, I have no details on this.",
    "That lies outside of what I can speak about.",
    "I cannot say anything reliable on this matter.",
    "This is not a topic I have any record of.",
    "I do not have an answer for you here.",
    "Whatever I said about it would be made up, so I will not.",
)


def read_refusals(path: Path) -> tuple[str, ...]:
    """Read a file of JSON lines {"answer": "..."}.

    Raises:
        InputError: the file cannot be read or is empty, or a line holds anything else; with the line.
    """
    text = read_data_text(path)
    if not text.strip():
        raise InputError(f'{path}: is empty; give lines such as {{"answer": "I do not know."}}.')
    refusals = []
    for where, record in parse_json_lines(text, str(path)):
        answer = record.get("answer")
        if set(record) != {"answer"} or not isinstance(answer, str) or not answer.strip():
            raise InputError(f"{where}: must hold one key, 'answer', with some text.")
        refusals.append(answer)
    return tuple(refusals)


def refuse_each(
    tokeniser: ExampleTokeniser, examples: Sequence[Example], *, seed: int, refusals: Sequence[str] = REFUSAL_TEXTS
) -> list[TokenisedExample]:
    """Answer every example with a refusal: the same prompt and template, another completion.

    Which refusal an example gets follows from the seed and its place.

    Raises:
        InputError: an example of plain text, which asks nothing; names the line.
    """
    draw = random.Random(seed)
    refused = []
    for example in examples:
        if example.shape == "text":
            raise InputError(
                f"{example.source}: plain text has no prompt that a refusal could answer; write questions."
            )
        refusal = draw.choice(refusals)
        if example.shape == "prompt_completion":  # verbatim text: the border may be a space of the completion's
            refusal = example.completion[: len(example.completion) - len(example.completion.lstrip())] + refusal
        refused.append(tokeniser.encode(example, completion=refusal))
    return refused
