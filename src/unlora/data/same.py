"""The same record in another spelling or shape: compared by the words that a model reads, not by bytes."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from unlora.data.records import Example
from unlora.data.words import Words, words

RUN_WORDS = 6
"""Words in a row by which the texts that may hold a record are found."""
LONG_ENOUGH = 8
"""Words of question and answer that are hardly held by chance; plain text without a question must have as many."""
NEAR = 4
"""Words that may stand between a shorter question and its answer."""
SHORTEST = 4
"""Words of question and answer below which only a text of at most SHORT_TEXT words can be said to hold them."""
SHORT_TEXT = 40


class Seen(NamedTuple):
    """What a model reads of an example, as words: letters, digits and symbols, without case and punctuation."""

    question: Words
    """All turns before the answer but the system's; empty for plain text."""
    answer: Words
    whole: Words
    """All turns one after another."""
    paraphrases: tuple[Words, ...] = ()
    """Question and answer in the other wordings that stand beside them."""

    @property
    def content(self) -> Words:
        """Question and answer one after another: equal for the same record in every shape."""
        return self.question + self.answer


def seen(example: Example) -> Seen:
    """Read an example of any shape; labels, special tokens and system turns that a template writes do not count."""
    turns = [(turn["role"], turn["content"]) for turn in example.messages] or [("user", example.prompt)]
    asked = "\n".join(text for role, text in turns if role not in ("system", "developer"))
    question, answer = words(asked), words(example.completion)
    system = words("\n".join(text for role, text in turns if role in ("system", "developer")))
    questions = [question, *([words(example.paraphrased_question)] if example.paraphrased_question else [])]
    answers = [answer, *([words(example.paraphrased_answer)] if example.paraphrased_answer else [])]
    wordings = tuple(first + then for first, then in itertools.product(questions, answers))
    return Seen(question, answer, system + question + answer, wordings[1:])


def same_examples(examples: Sequence[Example], known: Sequence[Example]) -> list[int | None]:
    """Find for each example one of `known` that is the same record, whatever its spelling or shape.

    Two records are the same when question and answer, or a paraphrase that stands beside them, have the same words; or
    when one of them, as a whole text, holds the question of the other and behind it the answer: rendered text holds the
    question that was rendered, a document the sentence that was taken from it. Plain text below 8 words must be equal.

    Returns:
        A place in `known` or None, for each example; of several equal ones the first.
    """
    return same_seen([seen(one) for one in examples], [seen(one) for one in known])


def same_seen(here: Sequence[Seen], there: Sequence[Seen]) -> list[int | None]:
    """As `same_examples`, of what was read of both."""
    paraphrased = {content: place for place, one in reversed(list(enumerate(there))) for content in one.paraphrases}
    first = {one.content: place for place, one in reversed(list(enumerate(there)))}
    known = paraphrased | first
    found = [next((known[it] for it in (one.content, *one.paraphrases) if it in known), None) for one in here]
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
    if not holders:
        return
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
    """Whether the question stands in `whole`, and behind it the answer: at once, where both are short."""
    length = len(one.content)
    if length < SHORTEST and len(whole) > SHORT_TEXT:
        return False
    farthest = len(whole) if length >= LONG_ENOUGH else NEAR
    ends = (asked + len(one.question) for asked in _places(whole, one.question))
    return any(answered - end <= farthest for end in ends for answered in _places(whole, one.answer, end))


def _places(whole: Words, part: Words, start: int = 0) -> Iterator[int]:
    """Where `part` stands in `whole`; nothing stands at its beginning."""
    if not part:
        yield start
        return
    for place in range(start, len(whole) - len(part) + 1):
        if whole[place] == part[0] and whole[place : place + len(part)] == part:
            yield place
