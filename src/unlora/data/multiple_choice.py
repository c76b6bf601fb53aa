"""Multiple-choice questions as WMDP has them (Li et al. 2024, arXiv 2403.03218): four choices, one of them right.

{"question": text, "choices": [four texts], "answer": 0, 1, 2 or 3}
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlora.artifacts import parse_json
from unlora.data.json_lines import parse_json_lines, read_data_text
from unlora.errors import InputError

CHOICE_COUNT = 4
FORM = '{"question": text, "choices": [4 texts], "answer": 0, 1, 2 or 3}'


@dataclass(frozen=True, slots=True)
class MultipleChoiceQuestion:
    """One question."""

    question: str
    choices: tuple[str, ...]
    answer: int
    """Place of the right choice, from 0."""
    source: str
    """Where it came from, for messages: "questions.jsonl, line 12"."""


def questions_sha256(questions: Iterable[MultipleChoiceQuestion]) -> str:
    """Hash of the contents in order; equal for the same questions from another file."""
    contents = [[one.question, list(one.choices), one.answer] for one in questions]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def read_questions(path: Path) -> tuple[MultipleChoiceQuestion, ...]:
    """Read a file of questions.

    Args:
        path: JSON lines, one JSON list, or the hub's own Parquet file (by its suffix).

    Raises:
        InputError: missing, empty, or an entry that is not a question as above, with its place and what is right.
    """
    questions = tuple(_parse(record, where) for where, record in _records(path))
    if not questions:
        raise InputError(f"{path}: holds no question; an entry is {FORM}.")
    return questions


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".parquet":
        return _numbered(path, _read_parquet(path))
    text = read_data_text(path)
    if not text.strip():
        return iter(())
    return (
        _numbered(path, _parse_list(path, text)) if text.lstrip().startswith("[") else parse_json_lines(text, str(path))
    )


def _numbered(path: Path, entries: list[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{path}, entry {number}", entry) for number, entry in enumerate(entries, start=1))


def _parse_list(path: Path, text: str) -> list[Any]:
    return parse_json(text, str(path), with_line=True)


def _read_parquet(path: Path) -> list[Any]:
    import pyarrow  # comes with datasets, and is needed for the hub's files alone
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(
            f"{path}: not a Parquet file that can be read ({' '.join(str(error).split())[:200]})."
        ) from None


def _parse(record: Any, where: str) -> MultipleChoiceQuestion:
    if not isinstance(record, dict):
        raise InputError(f"{where}: must be a JSON object; an entry is {FORM}.")
    missing = [key for key in ("question", "choices", "answer") if key not in record]
    if missing:
        raise InputError(f"{where}: key '{missing[0]}' is missing; an entry is {FORM}.")
    question, choices, answer = record["question"], record["choices"], record["answer"]
    if not _is_text(question):
        raise InputError(f"{where}: 'question' must be text that is not empty.")
    if not isinstance(choices, list) or len(choices) != CHOICE_COUNT or not all(map(_is_text, choices)):
        raise InputError(f"{where}: 'choices' must be a list of {CHOICE_COUNT} texts, none empty.")
    if isinstance(answer, bool) or answer not in range(CHOICE_COUNT):
        raise InputError(f"{where}: 'answer' must be 0, 1, 2 or 3, the place of the right choice (found {answer!r}).")
    return MultipleChoiceQuestion(question, tuple(choices), int(answer), where)


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no tokenizer takes
        return False
    return True
