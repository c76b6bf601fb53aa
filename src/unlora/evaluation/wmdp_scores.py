"""What a model was asked in WMDP's evaluation and what it answered, question by question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlora.data.multiple_choice import MultipleChoiceQuestion
from unlora.errors import InputError
from unlora.evaluation.score_file import ScoreFile, to_item

SCORE_FILE = ScoreFile("multiple-choice scores", 1, "task")


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
    SCORE_FILE.save(path, scores.protocol, scores.tasks)


def load_wmdp_scores(path: Path) -> WmdpScores:
    """Read what `save_wmdp_scores` wrote.

    Raises:
        InputError: missing, or a line that `save_wmdp_scores` did not write.
    """
    tasks, protocol = SCORE_FILE.load(path, lambda _, record: to_item(QuestionScore, record))
    return WmdpScores({name: tuple(questions) for name, questions in tasks.items()}, protocol)
