"""What a model was asked in RWKU's evaluation and what it answered, probe by probe."""

from dataclasses import dataclass

from unlora.data.rwku import SETS, TEXTS
from unlora.data.rwku_utility import FILES
from unlora.suites.scores import ScoreFile


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """One probe. NaN means unscored."""

    source: str
    """Where it came from: "forget_level1.json, entry 3"."""
    subject: str
    """Whom it is about, or whose neighbour."""
    kind: str
    """Of an attack, which; elsewhere empty."""
    query: str
    answer: str
    """The true one."""
    answered: str
    """The model's own greedy answer, up to the end of its line."""
    rouge_l_recall: float
    """Of `answered` against `answer`, as RWKU computes it, in [0, 1]."""
    answer_log_prob: float
    """Mean log-probability of the true answer's tokens after the prompt, in nats a token."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """What was asked."""
        return self.kind, self.query, self.answer


@dataclass(frozen=True, slots=True)
class UtilityScore:
    """One question or instruction of a utility set. NaN means unscored."""

    source: str
    """Where it came from: "triviaqa.json, entry 3"."""
    subject: str
    """Whose forget set it stands beside."""
    kind: str
    """Of MMLU and BBH, the task; elsewhere empty."""
    query: str
    answers: tuple[str, ...]
    """Those that are right; none for an instruction."""
    answered: str
    """What the model wrote, or the likeliest choice."""
    values: tuple[float, ...]
    """In the order of the set's metrics (`unlora.suites.rwku.utility.ASKING`); in [0, 1], of fluency in bits."""

    @property
    def identity(self) -> tuple[str, str, tuple[str, ...]]:
        """What was asked."""
        return self.kind, self.query, self.answers


RWKU_FILE = ScoreFile(
    "RWKU scores",
    1,
    "set",
    {**dict.fromkeys((*SETS, *TEXTS), ProbeScore), **dict.fromkeys(FILES, UtilityScore)},
)
