"""Every form that is written for another program, by its name on the command line."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

from unlora.consumers.answers import LogProbs
from unlora.consumers.llama_cpp import GgufAdapter, GgufModel, GgufSettings
from unlora.consumers.mlx import MlxAdapter

FormName = Literal["adapter", "merged"]


@runtime_checkable
class Form(Protocol):
    """What one program takes, adapter or model: how it is written, and how the program itself scores answers."""

    name: ClassVar[str]
    """The program."""
    library: ClassVar[str]
    """What the hub calls it."""
    needs_base: ClassVar[bool]
    """Whether it is used on a base model."""

    def prepare(self) -> None:
        """Refuse what could not be written, before any work."""
        ...

    def outtype(self, base: str) -> str:
        """The number format that is written, for weights in the format `base`."""
        ...

    def write(self, source: Path, base: Path, folder: Path, outtype: str) -> None:
        """Write into `folder` what was exported to `source`; `base` holds at least the base's config.json."""
        ...

    def score(self, folder: Path, base: Path, dtype: str, answers: Sequence[tuple[list[int], int]]) -> list[LogProbs]:
        """Score answers in the program; `base` is the base's whole folder, in the number format `dtype`."""
        ...

    def explained(self, *formats: str) -> float:
        """Mean difference of log-probabilities, in nats, that rounding to these number formats explains."""
        ...

    def missing(self) -> str | None:
        """What is not installed, and how it would be; None where it is here."""
        ...

    def runtime(self) -> str:
        """What it is tried in."""
        ...

    def commands(self, base: str) -> str:
        """Lines that run it, for a base of that name."""
        ...


FORMS: Mapping[tuple[str, FormName], Callable[[GgufSettings], Form]] = {
    ("gguf", "adapter"): GgufAdapter,
    ("gguf", "merged"): GgufModel,
    ("mlx", "adapter"): lambda _: MlxAdapter(),
}
