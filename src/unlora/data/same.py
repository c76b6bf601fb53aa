"""The same record in another spelling or shape: compared by the words that a model reads, not by bytes."""

import functools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from unlora.data.records import Example

Words = tuple[str, ...]

RUN_WORDS = 6
"""Words in a row by which the texts that may hold a record are found."""
LONG_ENOUGH = 8
"""Words that plain text without a question must have, to be looked for within longer text."""

_MARKUP = re.compile(r"<\|?[/\w:.-]{1,40}\|?>|\[/?[A-Z_]{2,20}\]")
"""Special tokens written out: <|im_end|>, <s>, <end_of_turn>, [INST]."""
_ROLES = "user|assistant|system|model|human"
_LABELS = re.compile(rf"(?im)\b(?:question|answer|q|a|instruction|response|{_ROLES})\s*:|^\s*(?:{_ROLES})\s*$")
"""What a template writes around a question or an answer: "Question:", or a line that names the role alone."""
_QUOTES = "`´"
"""Quotation marks that Unicode counts among symbols."""


class Seen(NamedTuple):
    """What a model reads of an example, as words: letters, digits and symbols, without case and punctuation."""

    question: Words
    """All turns before the answer but the system's; empty for plain text."""
    answer: Words
    whole: Words
    """All turns one after another."""

    @property
    def content(self) -> tuple[Words, Words]:
        """Question and answer: equal for the same record."""
        return self.question, self.answer


def seen(example: Example) -> Seen:
    """Read an example of any shape; labels and special tokens that a template writes do not count."""
    turns = [(turn["role"], turn["content"]) for turn in example.messages] or [("user", example.prompt)]
    asked = "\n".join(text for role, text in turns if role != "system")
    everything = "\n".join((*(text for _, text in turns), example.completion))
    return Seen(words(asked), words(example.completion), words(everything))


def words(text: str) -> Words:
    """Split text into its words in Unicode's compatibility form, case folded; invisible characters vanish.

    Text of punctuation alone is one word, so that it equals itself and nothing else.
    """
    plain = unicodedata.normalize("NFKC", _LABELS.sub(" ", _MARKUP.sub("\n", text))).casefold().translate(_separators())
    # Folding case can take a text out of its composed form.
    found = tuple(unicodedata.normalize("NFKC", plain).split())
    return found or tuple("".join(text.split())[:1] and ["".join(text.split())])


def same_examples(examples: Sequence[Example], known: Sequence[Example]) -> list[int | None]:
    """Find for each example one of `known` that is the same record, whatever its spelling or shape.

    Two records are the same when question and answer have the same words, or when one of them, as a whole text, holds
    the question of the other and behind it the answer: rendered text holds the question that was rendered, a document
    the sentence that was taken from it. Plain text below 8 words must be equal.

    Returns:
        A place in `known` or None, for each example; of several equal ones the first.
    """
    here, there = [seen(one) for one in examples], [seen(one) for one in known]
    first = {one.content: place for place, one in reversed(list(enumerate(there)))}
    found = [first.get(one.content) for one in here]
    rest = {place: here[place] for place, other in enumerate(found) if other is None}
    others = {place: there[place] for place in first.values()}
    held = [*_held(others, rest), *((outside, inside) for inside, outside in _held(rest, others))]
    for other, place in sorted(held, reverse=True):
        found[place] = other
    return found


def _held(sought: Mapping[int, Seen], holders: Mapping[int, Seen]) -> Iterator[tuple[int, int]]:
    """Yield (place in `sought`, place in `holders`) where the second as a whole holds the first, question and answer.

    Each is looked for by the rarest run of words in it, so that answers which begin alike cost nothing.
    """
    runs = {place: _runs(one) for place, one in sought.items() if one.question or len(one.answer) >= LONG_ENOUGH}
    counts = Counter(run for one in runs.values() for run in one)
    by_run: dict[Words, list[int]] = defaultdict(list)
    for place, one in runs.items():
        by_run[min(one, key=lambda run: counts[run])].append(place)
    lengths = sorted({len(run) for run in by_run})
    for outside, holder in holders.items():
        whole = holder.whole
        windows = {whole[start : start + size] for size in lengths for start in range(len(whole) - size + 1)}
        for window in windows & by_run.keys():
            yield from ((inside, outside) for inside in by_run[window] if _holds(whole, sought[inside]))


def _runs(one: Seen) -> set[Words]:
    """All runs of up to RUN_WORDS words within the question and within the answer."""
    parts = [part for part in (one.question, one.answer) if part]
    sizes = [min(RUN_WORDS, len(part)) for part in parts]
    return {
        part[start : start + size]
        for part, size in zip(parts, sizes, strict=True)
        for start in range(len(part) - size + 1)
    }


def _holds(whole: Words, one: Seen) -> bool:
    """Whether the question stands in `whole`, and somewhere behind it the answer."""
    asked = _place(whole, one.question, 0)
    return asked is not None and _place(whole, one.answer, asked + len(one.question)) is not None


def _place(whole: Words, part: Words, start: int) -> int | None:
    places = range(start, len(whole) - len(part) + 1)
    return next((place for place in places if whole[place : place + len(part)] == part), None)


@functools.cache
def _separators() -> dict[int, str | None]:
    """Punctuation and blanks become a blank; format characters (zero width, soft hyphen, direction) vanish."""
    table: dict[int, str | None] = {}
    for code in (*range(0x20000), *range(0xE0000, 0xE0200)):
        category = unicodedata.category(chr(code))
        if category[0] in "PZ" or category == "Cc":
            table[code] = " "
        elif category == "Cf" or 0xFE00 <= code <= 0xFE0F:
            table[code] = None
    return table | {ord(mark): " " for mark in _QUOTES}
