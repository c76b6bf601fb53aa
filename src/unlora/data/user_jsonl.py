"""User data: JSON lines in one of four shapes. A bad line is refused with file, line and reason; none is skipped.

    {"question", "answer"}      goes through a template
    {"prompt", "completion"}    verbatim text
    {"messages"}                chat turns, the last one the assistant's
    {"text"}                    all of it is completion

`id`, `source` and `person` may stand beside any shape; TOFU's paraphrases and wrong answers beside a question.
"""

import json
from pathlib import Path
from typing import Any

from unlora.artifacts import parse_json, write_text
from unlora.data.records import DataShape, Example, ExampleSet
from unlora.errors import InputError, nearest
from unlora.regular_files import refuse_irregular

REQUIRED_KEYS: dict[DataShape, tuple[str, ...]] = {
    "question_answer": ("question", "answer"),
    "prompt_completion": ("prompt", "completion"),
    "messages": ("messages",),
    "text": ("text",),
}
NOTE_KEYS = ("id", "source", "person")
TOFU_KEYS = ("paraphrased_answer", "paraphrased_question", "perturbed_answer")
LONGEST_LINE = 8 * 2**20
"""Bytes: several books. A whole corpus in one line is a mistake, and would take all memory."""
SHAPE_HINT = "a line holds question and answer, or prompt and completion, or messages, or text"


def read_examples(path: Path, name: str | None = None) -> ExampleSet:
    """Read a file of JSON lines; `name` is the file's path unless given.

    Raises:
        InputError: the file is missing, not a file, empty or not UTF-8, or a line is not an example; with the line.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file of JSON lines.")
    refuse_irregular(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    if not content.strip():
        raise InputError(f"{path}, line 1: the file is empty; {SHAPE_HINT}.")
    # Split on the newline byte alone: JSON strings may hold the other characters that str.splitlines() splits on.
    lines = content.removeprefix(b"\xef\xbb\xbf").rstrip().split(b"\n")
    examples = tuple(_parse_line(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1))
    return ExampleSet(name or str(path), examples)


def to_jsonl(examples: ExampleSet, path: Path) -> None:
    """Write `examples` atomically so that `read_examples` gives the same contents back."""
    write_text(path, "".join(json.dumps(_to_record(one), ensure_ascii=False) + "\n" for one in examples))


def parse_record(record: Any, where: str) -> Example:
    """Turn one decoded JSON value into an example.

    Args:
        record: what the line holds.
        where: named in messages and kept as the example's source.

    Raises:
        InputError: not an object, no shape or two, an unknown key, an empty or non-text value.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: must be a JSON object, found {_kind(record)}; {SHAPE_HINT}.")
    shape = _find_shape(record, where)
    _check_keys(record, shape, where)
    person = _text(record, "person", where) if "person" in record else None
    if shape == "question_answer":
        return Example(
            shape,
            _text(record, "question", where),
            _text(record, "answer", where),
            where,
            paraphrased_answer=_optional_text(record, "paraphrased_answer", where),
            paraphrased_question=_optional_text(record, "paraphrased_question", where),
            perturbed_answers=_perturbed_answers(record, where),
            person=person,
        )
    if shape == "prompt_completion":
        prompt = _text(record, "prompt", where, may_be_empty=True)
        return Example(shape, prompt, _text(record, "completion", where), where, person=person)
    if shape == "text":
        return Example(shape, "", _text(record, "text", where), where, person=person)
    *turns, answer = _messages(record, where)
    return Example(shape, turns[-1]["content"], answer["content"], where, messages=tuple(turns), person=person)


def _parse_line(line: bytes, where: str) -> Example:
    if len(line) > LONGEST_LINE:
        size, limit = len(line) / 2**20, LONGEST_LINE // 2**20
        raise InputError(f"{where}: the line has {size:.0f} MiB, and the limit is {limit}; make several records of it.")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text (byte {error.start + 1} of the line).") from None
    if not text.strip():
        raise InputError(f"{where}: the line is empty; remove it.")
    return parse_record(parse_json(text, where), where)


def _find_shape(record: dict[str, Any], where: str) -> DataShape:
    shapes: list[DataShape] = [shape for shape, keys in REQUIRED_KEYS.items() if all(key in record for key in keys)]
    if len(shapes) == 1:
        return shapes[0]
    if shapes:
        keys = " and ".join("/".join(REQUIRED_KEYS[shape]) for shape in shapes)
        raise InputError(f"{where}: two shapes at once ({keys}); keep one.")
    for keys in REQUIRED_KEYS.values():
        if missing := [key for key in keys if key not in record]:
            if len(missing) < len(keys):
                raise InputError(f"{where}: key '{missing[0]}' is missing; {SHAPE_HINT}.")
    found = ", ".join(map(repr, record)) or "none"
    raise InputError(f"{where}: unknown shape (keys found: {found}); {SHAPE_HINT}.")


def _check_keys(record: dict[str, Any], shape: DataShape, where: str) -> None:
    allowed = (*REQUIRED_KEYS[shape], *NOTE_KEYS, *(TOFU_KEYS if shape == "question_answer" else ()))
    for key in record:
        if key not in allowed:
            hint = nearest(key, allowed) or f" Known keys: {', '.join(allowed)}."
            raise InputError(f"{where}: unknown key '{key}' beside {' and '.join(REQUIRED_KEYS[shape])}.{hint}")


def _text(record: dict[str, Any], key: str, where: str, *, may_be_empty: bool = False) -> str:
    value = record[key]
    if not isinstance(value, str):
        raise InputError(f"{where}: '{key}' must be text, found {_kind(value)}.")
    if not may_be_empty and not value.strip():
        raise InputError(f"{where}: '{key}' is empty; write some text or remove the line.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: '{key}' holds half of a surrogate pair, which is no character.") from None
    return value


def _optional_text(record: dict[str, Any], key: str, where: str) -> str | None:
    return _text(record, key, where) if key in record else None


def _perturbed_answers(record: dict[str, Any], where: str) -> tuple[str, ...]:
    answers = record.get("perturbed_answer", [])
    if not isinstance(answers, list):
        raise InputError(f"{where}: 'perturbed_answer' must be a list of texts, found {_kind(answers)}.")
    return tuple(_text({"perturbed_answer": answer}, "perturbed_answer", where) for answer in answers)


def _messages(record: dict[str, Any], where: str) -> list[dict[str, str]]:
    messages = record["messages"]
    if not isinstance(messages, list):
        raise InputError(f"{where}: 'messages' must be a list of turns, found {_kind(messages)}.")
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise InputError(f"{where}: every message must be an object with 'role' and 'content' and nothing else.")
        _text(message, "role", where)
        _text(message, "content", where)
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise InputError(f"{where}: 'messages' must end with an assistant turn that answers an earlier turn.")
    return messages


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    names |= dict.fromkeys((int, float), "a number")
    # Rows that another library has read may hold what JSON has not: `datasets` makes dates of texts like them.
    return names.get(type(value), type(value).__name__)


def _to_record(example: Example) -> dict[str, Any]:
    if example.shape == "messages":
        answer = {"role": "assistant", "content": example.completion}
        record: dict[str, Any] = {"messages": [*example.messages, answer]}
    else:
        values = {"text": [example.completion]}.get(example.shape, [example.prompt, example.completion])
        record = dict(zip(REQUIRED_KEYS[example.shape], values, strict=True))
    extras = {
        "paraphrased_answer": example.paraphrased_answer,
        "perturbed_answer": list(example.perturbed_answers),
        "paraphrased_question": example.paraphrased_question,
        "person": example.person,
    }
    return record | {key: value for key, value in extras.items() if value}
