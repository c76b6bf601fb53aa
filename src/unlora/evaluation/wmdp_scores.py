"""What a model was asked in WMDP's evaluation and what it answered, question by question."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unlora.artifacts import parse_json_object, write_text
from unlora.data.json_lines import read_text
from unlora.data.multiple_choice import MultipleChoiceQuestion
from unlora.errors import InputError

FILE_KIND = {"kind": "unlora multiple-choice scores", "schema": 1}


@dataclass(frozen=True, slots=True)
class QuestionScore:
    """One question. NaN means unscored; log-probabilities are in nats."""

    source: str
    """Where it came from: "wmdp_bio, question 12"."""
    question: str
    choices: tuple[str, ...]
    answer: int
    """Place of the right choice, from 0."""
    letter_log_probs: tuple[float, ...]
    """Log-likelihood of the letters A to D after the question with its options."""
    correct: float
    """1 where the likeliest letter is the right one, else 0, as lm-evaluation-harness scores it."""
    truncated: bool
    """Whether the prompt lost its beginning to the model's context."""
    choice_log_probs: tuple[float, ...]
    """Asked without options: mean log-probability of each choice's tokens; empty where it was not asked so."""
    generated: str | None
    """Asked without options: the model's own greedy answer; None where it was not asked so."""
    rouge_l_recall: float
    """Of `generated` against the right choice."""
    not_asked_openly: str | None
    """Why it was not asked without its options; None where it was, or where nothing was."""


@dataclass(frozen=True)
class WmdpScores:
    """One model's scores."""

    tasks: Mapping[str, tuple[QuestionScore, ...]]
    """By name: wmdp_bio, wmdp_cyber, wmdp_chem, mmlu, or wmdp for a local file without a subject."""
    protocol: Mapping[str, Any]
    """How they were made."""


def check_comparable(
    scores: WmdpScores,
    tasks: Mapping[str, Sequence[QuestionScore | MultipleChoiceQuestion]],
    protocol: Mapping[str, Any],
) -> None:
    """Refuse to set a model beside another that was not asked the same thing in the same way.

    Args:
        scores: of the one.
        tasks: what the other was asked, or is going to be.
        protocol: how.

    Raises:
        InputError: another version of the harness, another way to ask without options, or other questions.
    """
    remedy = "score both models with the same data and settings"
    for key in ("harness", "open_ended"):
        if scores.protocol.get(key) != protocol.get(key):
            raise InputError(f"scores: the two models were asked with different {key} settings; {remedy}.")
    if scores.tasks.keys() != tasks.keys():
        raise InputError(
            f"scores: one model was asked {', '.join(scores.tasks)}, another {', '.join(tasks)}; {remedy}."
        )
    for name, questions in scores.tasks.items():
        if _what_was_asked(questions) != _what_was_asked(tasks[name]):
            counts = f"{len(questions)} and {len(tasks[name])} questions"
            raise InputError(f"scores: the two models were asked different {name} questions ({counts}); {remedy}.")


def _what_was_asked(
    questions: Sequence[QuestionScore | MultipleChoiceQuestion],
) -> list[tuple[str, tuple[str, ...], int]]:
    return sorted((one.question, one.choices, one.answer) for one in questions)


def save_wmdp_scores(path: Path, scores: WmdpScores) -> None:
    """Write JSON lines atomically: a header with the protocol, then one line a question; unscored becomes null."""
    records: list[dict[str, Any]] = [{**FILE_KIND, "protocol": dict(scores.protocol)}]
    for name, questions in scores.tasks.items():
        records += [{"task": name} | _nan_to_null(asdict(question)) for question in questions]
    write_text(path, "".join(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in records))


def load_wmdp_scores(path: Path) -> WmdpScores:
    """Read what `save_wmdp_scores` wrote.

    Raises:
        InputError: missing, or a line that `save_wmdp_scores` did not write.
    """
    lines = read_text(path).removesuffix("\n").split("\n")
    header = parse_json_object(lines[0], f"{path}, line 1")
    if {key: header.get(key) for key in FILE_KIND} != FILE_KIND or not isinstance(header.get("protocol"), dict):
        raise InputError(f"{path}, line 1: not the header of a file of WMDP scores that this version of unlora wrote.")
    tasks: dict[str, list[QuestionScore]] = {}
    for number, line in enumerate(lines[1:], start=2):
        record = parse_json_object(line, f"{path}, line {number}")
        try:
            tasks.setdefault(record.pop("task"), []).append(_to_score(record))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}, line {number}: not a question's scores as unlora writes them.") from None
    return WmdpScores({name: tuple(questions) for name, questions in tasks.items()}, header["protocol"])


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_null(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_nan_to_null(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _to_score(record: dict[str, Any]) -> QuestionScore:
    lists = {key: tuple(map(_number, record[key])) for key in ("letter_log_probs", "choice_log_probs")}
    numbers = {key: _number(record[key]) for key in ("correct", "rouge_l_recall")}
    return QuestionScore(**{**record, **lists, **numbers, "choices": tuple(record["choices"])})


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
