"""What a suite is: settings as its fields, and how it loads, asks and measures. All else is the same for all."""

import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from transformers import PreTrainedTokenizerBase

from unlora.models.context import context_length
from unlora.models.vocabulary import embedding_count
from unlora.models.wrapping import CausalModel, unwrap
from unlora.results import Measurement
from unlora.suites.scores import AskedSets, ModelScores, ScoreFile, check_comparable
from unlora.suites.settings import SuiteSettings

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


class SuiteReader(NamedTuple):
    """How a model reads text: what a suite has to know of it before it asks."""

    tokenizer: PreTrainedTokenizerBase
    embedding_count: int | None = None
    """Tokens that the model has an embedding for; None where it is not known."""
    context: int = sys.maxsize
    """Tokens that the model takes at once."""

    @classmethod
    def of(cls, model: CausalModel, tokenizer: PreTrainedTokenizerBase) -> "SuiteReader":
        """Return how `model` reads with `tokenizer`."""
        plain = unwrap(model)
        context = context_length(plain.config) or sys.maxsize
        return cls(tokenizer, embedding_count(plain), min(context, int(tokenizer.model_max_length)))


@runtime_checkable
class Question(Protocol):
    """One item that a model is asked, in tokens."""

    @property
    def source(self) -> str:
        """Where it came from."""
        ...

    @property
    def identity(self) -> tuple[Any, ...]:
        """What is asked: equal to that of its score."""
        ...

    @property
    def content(self) -> Any:
        """Everything of it that decides the answer, ready for JSON."""
        ...


class Asked(NamedTuple):
    """What one model is asked."""

    sets: Mapping[str, Sequence[Any]]
    """`Question`s by set."""
    protocol: Mapping[str, Any]
    """How they are asked, for the record."""
    deciding: Mapping[str, Any]
    """What of it decides the answer to any single question."""
    means: Any = None
    """What else the suite needs to ask, such as a tokeniser."""


class Suite(SuiteSettings):
    """One benchmark.

    To write one: the class attributes, the five abstract methods, and a row in `unlora.suites.table`. An item that a
    model was asked is a dataclass with `source` and `identity` (see `unlora.suites.scores.AskedItem`).
    """

    name: ClassVar[str]
    score_file: ClassVar[ScoreFile[Any]]
    """How its scores are saved."""
    compared: ClassVar[Mapping[str, str]] = {}
    """What of the protocol two models must share: its key -> what a message calls it."""
    unit: ClassVar[str] = "questions"
    """What a message calls the items of a set."""

    @abstractmethod
    def load(self) -> Any:
        """Load what is asked, before any model.

        Raises:
            InputError: it is not there, or not what it should be.
        """

    @abstractmethod
    def hashes(self, loaded: Any) -> dict[str, str]:
        """Say what was loaded: a run can be resumed only with the same."""

    @abstractmethod
    def prepare(self, loaded: Any, reader: SuiteReader) -> Asked:
        """Turn what was loaded into tokens.

        Raises:
            InputError: what cannot be asked.
        """

    @abstractmethod
    def ask(
        self, model: CausalModel, asked: Asked, name: str, questions: Sequence[Any], progress: Progress | None
    ) -> Sequence[Any]:
        """Ask a model the `questions` of the set `name`, some or all of it; return one score a question, in order."""

    @abstractmethod
    def measure(self, scores: ModelScores[Any], retain_only: ModelScores[Any] | None) -> dict[str, Measurement]:
        """Compute every metric of one model; the retain-only model may be the model itself."""

    def title(self, role: str) -> str:
        """What stands beside the progress bar."""
        return f"{self.name.upper()}: {role}"

    def readers(self) -> dict[str, Callable[[Path], ModelScores[Any]]]:
        """Ending of a file that may stand for the retain-only model -> its reader."""
        return {".jsonl": self.score_file.load}

    def saved_reference(self) -> ModelScores[Any] | None:
        """The scores of the retain-only model, where the setting names a file of them.

        Raises:
            InputError: it is not there, or not such a file.
        """
        read = self.readers().get(Path(self.retain_only or "").suffix)
        return read(Path(self.retain_only)) if read is not None and self.retain_only is not None else None

    def refuse_reference(self, loaded: Any, reference: ModelScores[Any]) -> None:
        """Refuse saved scores that are seen not to fit before a model is loaded."""

    def check_comparable(self, scores: AskedSets, reference: AskedSets) -> None:
        """Refuse to set two models side by side that were not asked the same thing in the same way.

        Raises:
            InputError: saying what was different.
        """
        check_comparable(scores, reference, self.compared, unit=self.unit)

    def recorded(self, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """What of the protocol of the scores, and beside it, stands in the record."""
        return {**protocol, "max_examples": self.max_examples}

    def remarks(self, protocol: Mapping[str, Any]) -> dict[str, Any]:
        """Further entries of the record."""
        return {}

    def write_more(self, folder: Path, models: Mapping[str, ModelScores[Any]]) -> None:
        """Write further files of the suite's own."""
