"""What a start is: one frozen class a kind, whose fields are its settings; `unlora.starts.table` lists them."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from torch import nn
from transformers import PreTrainedModel

from unlora.adapters.initial import FactorRequest, InitialFactors
from unlora.config import Config
from unlora.data.collate import collate, shortest_first
from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError
from unlora.importance.accumulate import Batch
from unlora.models.target_modules import TargetModule
from unlora.starts.sizes import BatchShape, Device, Layers

Advance = Callable[[int], None]
"""Called with the number of units that are done."""


def _silent(_title: str, _total: int) -> AbstractContextManager[Advance]:
    return nullcontext(lambda _count: None)


@dataclass(frozen=True)
class StartData:
    """The examples that a start may read."""

    forget: Sequence[TokenisedExample]
    retain: Sequence[TokenisedExample] | None
    pad_token_id: int
    seed: int = 0
    """Of everything that a start draws."""
    sha256: tuple[str | None, str | None] = (None, None)
    """Content of both sets."""

    def forget_batches(self, batch_size: int) -> Iterator[Batch]:
        """The whole forget set, examples of a length together."""
        return self._batches(self.forget, batch_size)

    def retain_batches(self, batch_size: int, most: int) -> Iterator[Batch] | None:
        """At most so many retain examples, drawn with the seed; None where there is no retain set."""
        sample = self.retain_sample(most)
        return None if sample is None else self._batches(sample, batch_size)

    def retain_sample(self, most: int) -> Sequence[TokenisedExample] | None:
        """At most so many retain examples, drawn with the seed; None where there is no retain set."""
        if self.retain is None or len(self.retain) <= most:
            return self.retain
        return random.Random(self.seed).sample(self.retain, most)

    def both_batches(self, batch_size: int, most: int) -> Iterator[Batch]:
        """The forget set's batches, then those of at most so many retain examples."""
        return chain(self.forget_batches(batch_size), self.retain_batches(batch_size, most) or ())

    def count(self, most: int) -> int:
        """Examples of the forget set and of a sample of at most so many of the retain set."""
        return len(self.forget) + len(self.retain_sample(most) or ())

    def _batches(self, examples: Sequence[TokenisedExample], batch_size: int) -> Iterator[Batch]:
        rows_of_batches = shortest_first(examples, batch_size)
        return (collate([examples[row] for row in rows], self.pad_token_id) for rows in rows_of_batches)


@dataclass(frozen=True)
class StartInputs:
    """What a start may use: the intact model, the layers that get an adapter, the data."""

    model: PreTrainedModel
    targets: Mapping[str, TargetModule]
    """Canonical name -> linear layer."""
    data: StartData
    rank: int
    """r."""
    alpha: float
    fingerprint: str | None = None
    """Of the model, where it is known."""
    scratch: Path | None = None
    """Folder for what does not fit into memory."""
    task: Callable[[str, int], AbstractContextManager[Advance]] = field(default=_silent)
    """Opens a piece of work of known size for a progress bar."""

    @property
    def scaling(self) -> float:
        """s, the adapter's alpha / r."""
        return self.alpha / self.rank

    def request(self, progress: Advance) -> FactorRequest:
        """What every layer's factors have in common."""
        return FactorRequest(self.rank, self.scaling, self.data.seed, progress)


@runtime_checkable
class Measured(Protocol):
    """What a start has measured; saved once by the run, and read again by the start's `load`."""

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        ...


class Started(NamedTuple):
    """Where training starts, and what it adds to the objective."""

    factors: dict[str, InitialFactors] | None
    """Canonical name -> B0, A0; None is ordinary LoRA, A0 random and B0 = 0."""
    penalty: Callable[[nn.Module], Any] | None = None
    """Of the model, added to the objective at every step."""


class Findings(NamedTuple):
    """What a measurement is worth."""

    lines: list[str]
    """For the reader."""
    record: dict[str, Any]
    """For record.json."""
    ranking: str
    """Where the forget set stands out, in words."""


class Start(Config, ABC):
    """One way to start; a subclass adds its settings as fields, documents each, and overrides what it needs."""

    kind: str
    """Its name in the table, or module:Class."""

    measures: ClassVar[bool] = False
    """Whether `measure` returns something that the run saves."""
    needs_retain: ClassVar[bool] = False
    """Whether it cannot do without a retain set."""
    anchored: ClassVar[bool] = True
    """Whether B0 A0 is not zero and must be cancelled: the adapter is then saved with rank 2r."""
    freezes_a: ClassVar[bool] = False
    """Whether A is meant to stay as it starts, unless adapter.freeze_a says otherwise."""
    by_example: ClassVar[bool] = False
    """Whether its layers must keep the examples of a batch apart."""
    takes_experts: ClassVar[bool] = False
    """Whether it can start, and measure, experts that share a tensor."""
    ranks_modules: ClassVar[bool] = False
    """Whether adapter.coverage can leave out the modules that matter least."""
    whole_factors: ClassVar[bool] = False
    """Whether training reads whole factors, which no process has where an engine cuts them."""
    reads_rounded: ClassVar[bool] = True
    """Whether a base in 4 or 8 bits can be measured."""
    title: ClassVar[str] = "Start"
    """Of its findings."""

    def rank_taken(self, rank: int) -> int:
        """Directions that a layer must have for an adapter of rank r."""
        return rank

    def fewest_examples(self) -> int:
        """Examples that the forget set must have."""
        return 1

    def refuse(self, *, retain: bool, coverage: float = 1.0, engine: str | None = None) -> None:
        """Refuse what this start cannot do, before anything is loaded.

        Args:
            retain: whether there is a retain set.
            coverage: adapter.coverage.
            engine: what cuts the weights into pieces, if anything does.

        Raises:
            InputError: naming the setting.
        """
        if self.needs_retain and not retain:
            raise InputError(f"start '{self.kind}': needs data.retain (--retain FILE).")
        if coverage != 1 and not self.ranks_modules:
            raise InputError(f"adapter.coverage: start '{self.kind}' has no importance to choose modules by.")
        if self.whole_factors and engine is not None:
            raise InputError(
                f"start '{self.kind}': its penalty reads whole factors, which no process has under {engine}; "
                "use --accelerate-config ddp."
            )

    def measure(self, inputs: StartInputs) -> Measured | None:
        """Measure the intact model; None where nothing is measured that is worth a file.

        Raises:
            InputError: a set, a layer or a setting with which it cannot be measured.
        """
        return None

    def load(self, path: Path) -> Any:
        """Read what an earlier measurement saved.

        Raises:
            InputError: not such a file.
        """
        raise InputError(f"start '{self.kind}': measures nothing, so there is no file of it.")

    def refuse_unless_fits(
        self, measured: Any, shapes: Mapping[str, tuple[int, int]], *, rank: int, fingerprint: str | None, where: str
    ) -> None:
        """Refuse a measurement of another model, of other layers, or made for another adapter.

        Args:
            measured: what `load` returned.
            shapes: canonical name -> (d_out, d_in) of every layer that gets an adapter.
            rank: of the adapter.
            fingerprint: of the model; None does not compare.
            where: what the message calls the measurement.

        Raises:
            InputError: naming the first difference.
        """
        return

    def findings(self, measured: Any) -> Findings:
        """Say what a measurement is worth."""
        return Findings([], {}, "")

    def kept_modules(self, measured: Any, names: Sequence[str], coverage: float) -> list[str]:
        """The layers that get an adapter, of those that could have one."""
        return list(names)

    @abstractmethod
    def begin(self, inputs: StartInputs, measured: Any) -> Started:
        """Decide where the factors of every layer start; the model is left as it was found.

        Raises:
            InputError: the rank does not fit a layer, or whatever else the start cannot do here.
        """

    def measured_batches(self, data: StartData) -> Iterator[Batch]:
        """The batches that `measure` reads, for a plan."""
        return iter(())

    def statistics_bytes(self, layers: Layers, rank: int, device: Device) -> int:
        """Memory beside the model of what is summed up while it is measured, at its most."""
        return 0

    def statistics_flops(self, layers: Layers, batch: BatchShape, rank: int) -> float:
        """What the statistics of one batch add to its forward and backward pass."""
        return 0.0

    def file_bytes(self, layers: Layers, rank: int, sets: int) -> int:
        """File of the measurement, without its header, of one or both sets."""
        return 0

    def cheaper(self) -> list[dict[str, Any]]:
        """Fields of this start that need less memory, or another start that does, in the order of what they cost."""
        return []
