"""Plain text that is longer than the length limit, in pieces that are not: nothing of a document is left out."""

import dataclasses
import math
import re
from collections.abc import Iterable

from unlora.data.pieces import count_words, cut_text
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import LONGEST_TEXT, ExampleTokeniser

FILL = 0.85
"""Share of the limit that a piece is to take: words have more and fewer tokens."""

_LATER = re.compile(r", part (?!1 of )\d+ of \d+$")


def in_pieces(examples: ExampleSet, tokeniser: ExampleTokeniser) -> ExampleSet:
    """Cut every example of shape "text" that is longer than the tokeniser's limit into consecutive pieces.

    Each piece is an example of its own, and its source says which part it is. Other shapes cannot be cut: an answer
    belongs to its prompt. Nor is anything where a longer example is to be refused.

    Raises:
        InputError: a text that cannot be tokenised, with its line.
    """
    if tokeniser.on_long == "refuse":
        return examples
    cut: list[Example] = []
    for example in examples:
        pieces = _cut(example, tokeniser) if example.shape == "text" else [example.completion]
        if len(pieces) == 1:
            cut.append(example)
            continue
        for number, piece in enumerate(pieces, start=1):
            source = f"{example.source}, part {number} of {len(pieces)}"
            cut.append(dataclasses.replace(example, completion=piece, source=source))
    return examples if len(cut) == len(examples) else ExampleSet(examples.name, tuple(cut))


def document_count(sources: Iterable[str]) -> int:
    """How many examples there were before `in_pieces`: the first part of each counts, and what was not cut."""
    return sum(_LATER.search(source) is None for source in sources)


def _cut(example: Example, tokeniser: ExampleTokeniser) -> list[str]:
    text = example.completion
    encoded = tokeniser.encode(example)
    if not encoded.truncated or len(text) < 2:
        return [text]
    tokens = len(encoded.input_ids) + encoded.lost_count
    if len(text) > LONGEST_TEXT:  # only its beginning was tokenised; the rest is taken to be like it
        tokens = math.ceil(tokens * len(text) / LONGEST_TEXT)
    count = math.ceil(tokens / (FILL * tokeniser.max_length))
    words = count_words(text)
    if words > 1:
        pieces = cut_text(text, max_words=math.ceil(words / max(count, 2)))
    else:
        pieces = [text[: len(text) // 2], text[len(text) // 2 :]]
    return [part for piece in pieces for part in _cut(dataclasses.replace(example, completion=piece), tokeniser)]
