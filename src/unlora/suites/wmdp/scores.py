"""What a model was asked in WMDP's evaluation and what it answered, question by question."""

from dataclasses import dataclass

from unlora.suites.scores import ScoreFile


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

    @property
    def identity(self) -> tuple[str, tuple[str, ...], int]:
        """What was asked."""
        return self.question, self.choices, self.answer


WMDP_FILE = ScoreFile("multiple-choice scores", 1, "task", QuestionScore)
