"""Hashes by which a ledger knows a forgotten record again, in any spelling, without holding its text.

They hide a text from whoever reads the ledger, not from whoever guesses the text and tries it.
"""

import hashlib
import hmac
from collections.abc import Iterable

from unlora.data.records import Example, ExampleSet
from unlora.data.same import seen
from unlora.data.words import Words
from unlora.ledger.entries import RecordSet


def hashed_records(salt: str, example: Example) -> list[str]:
    """Hashes of question and answer, and of each pair of their paraphrases: without case, punctuation and labels."""
    read = seen(example)
    return [_hash(salt, words) for words in (read.content, *read.paraphrases)]


def hashed_question(salt: str, example: Example) -> str | None:
    """The hash of the question alone; None for a text without one."""
    question = seen(example).question
    return _hash(salt, question) if question else None


def hashed_set(salt: str, examples: ExampleSet) -> RecordSet:
    """What a ledger holds of a set of records."""
    records = [one for example in examples for one in hashed_records(salt, example)]
    return RecordSet(
        sha256=examples.sha256(),
        example_count=len(examples),
        records=sorted(set(records)),
        questions=sorted({one for example in examples if (one := hashed_question(salt, example)) is not None}),
    )


class Forgotten:
    """What the requests in force have forgotten, to look records up in."""

    def __init__(self, salt: str, sets: Iterable[tuple[int, RecordSet]]) -> None:
        """Take the records of requests, each with its number; of equal ones the first counts."""
        self._salt = salt
        self._records: dict[str, int] = {}
        self._questions: dict[str, int] = {}
        for number, one in sets:
            self._records = dict.fromkeys(one.records, number) | self._records
            self._questions = dict.fromkeys(one.questions, number) | self._questions

    def record(self, example: Example) -> int | None:
        """The request that holds the same record, in whatever spelling; None where none does."""
        hashes = hashed_records(self._salt, example)
        return next((self._records[one] for one in hashes if one in self._records), None)

    def question(self, example: Example) -> int | None:
        """The request that holds a record with the same question; None where none does."""
        question = hashed_question(self._salt, example)
        return self._questions.get(question) if question is not None else None


def _hash(salt: str, words: Words) -> str:
    return hmac.new(salt.encode(), " ".join(words).encode(), hashlib.sha256).hexdigest()
