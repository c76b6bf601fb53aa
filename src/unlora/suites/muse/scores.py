"""What a model was asked in MUSE's evaluation and what it answered, item by item: all that the metrics are made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from unlora.suites.scores import ScoreFile


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

    @property
    def identity(self) -> tuple[str, str]:
        """What was asked."""
        return self.asked, self.reference


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

    @property
    def identity(self) -> tuple[str, int]:
        """What was asked; the token count tells apart texts that were cut at different lengths."""
        return self.text, self.token_count


KINDS: Mapping[str, type[AnswerScore] | type[TextScore]] = {
    "verbatim": AnswerScore,
    "forget_questions": AnswerScore,
    "retain_questions": AnswerScore,
    "forget_texts": TextScore,
    "holdout_texts": TextScore,
}
"""Part -> its items."""


MUSE_FILE = ScoreFile("MUSE scores", 1, "part", KINDS)
