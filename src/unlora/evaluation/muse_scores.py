"""What a model was asked in MUSE's evaluation and what it answered, item by item: all that the metrics are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unlora.errors import InputError
from unlora.evaluation.score_file import ScoreFile, to_item

SCORE_FILE = ScoreFile("MUSE scores", 1, "part")


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """One prompt to continue or question to answer. NaN means unscored."""

    source: str
    """Where it came from: "news/knowmem/forget_qa.json, entry 12"."""
    asked: str
    """The whole prompt, or the question alone: the demonstrations before it stand once in the protocol."""
    reference: str
    """What the answer is compared with; for a continuation, the start that an answer can have."""
    answered: str
    """The model's own greedy text, cut as MUSE cuts it."""
    rouge_l_f1: float
    """Of `answered` against `reference`, in [0, 1]."""
    reference_log_prob: float
    """Mean log-probability of the reference's tokens after the prompt, in nats a token."""
    prompt_cut: bool
    """Whether the prompt lost its beginning to the model's context."""


@dataclass(frozen=True, slots=True)
class TextScore:
    """One whole text. NaN means unscored."""

    source: str
    """Where it came from: "news/privleak/holdout.json, document 3"."""
    text: str
    """What was scored."""
    token_count: int
    """Scored tokens: all but the first."""
    min_40_score: float
    """Mean log-probability of the least probable 40 % of the tokens, in nats; higher = more member-like."""
    cut: bool
    """Whether the text lost its end to the model's context."""


@dataclass(frozen=True)
class MuseScores:
    """One model's scores on one corpus."""

    verbatim: tuple[AnswerScore, ...]
    forget_questions: tuple[AnswerScore, ...]
    retain_questions: tuple[AnswerScore, ...]
    forget_texts: tuple[TextScore, ...]
    holdout_texts: tuple[TextScore, ...]
    protocol: Mapping[str, Any]
    """How they were made."""


class _Part(NamedTuple):
    name: str
    kind: type[AnswerScore] | type[TextScore]


PARTS = (
    *(_Part(name, AnswerScore) for name in ("verbatim", "forget_questions", "retain_questions")),
    *(_Part(name, TextScore) for name in ("forget_texts", "holdout_texts")),
)


def check_comparable(scores: MuseScores, reference: MuseScores) -> None:
    """Refuse to set two models side by side that were not asked the same thing in the same way.

    Raises:
        InputError: another corpus, other limits, or other items in a part.
    """
    remedy = "score both models with the same data and settings"
    for key in ("corpus", "demonstrations", "limits"):
        if scores.protocol.get(key) != reference.protocol.get(key):
            raise InputError(f"scores: the two models were asked with different {key}; {remedy}.")
    for name, _ in PARTS:
        asked, reference_asked = (_what_was_asked(getattr(one, name)) for one in (scores, reference))
        if asked != reference_asked:
            counts = f"{len(asked)} and {len(reference_asked)} items"
            raise InputError(f"scores: the two models were asked different {name} ({counts}); {remedy}.")


def _what_was_asked(items: tuple[AnswerScore | TextScore, ...]) -> list[tuple[str, str | int]]:
    # The token count tells apart texts that were cut at different lengths; the order does not matter.
    return sorted(
        (item.asked, item.reference) if isinstance(item, AnswerScore) else (item.text, item.token_count)
        for item in items
    )


def save_muse_scores(path: Path, scores: MuseScores) -> None:
    """Write JSON lines atomically: a header with the protocol, then one line an item; unscored becomes null."""
    SCORE_FILE.save(path, scores.protocol, {name: getattr(scores, name) for name, _ in PARTS})


def load_muse_scores(path: Path) -> MuseScores:
    """Read what `save_muse_scores` wrote.

    Raises:
        InputError: missing, or a line that `save_muse_scores` did not write.
    """
    kinds: dict[str, type[Any]] = dict(PARTS)
    items, protocol = SCORE_FILE.load(path, lambda name, record: to_item(kinds[name], record))
    scored: dict[str, Any] = {name: tuple(items.get(name, ())) for name in kinds}
    return MuseScores(**scored, protocol=protocol)
