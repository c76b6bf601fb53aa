"""The released arithmetic of VILA and FILA, for comparison."""

from abc import ABC
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from unlora.data.collate import collate
from unlora.errors import InputError
from unlora.importance.accumulate import Batch
from unlora.importance.importance_map import ImportanceMap
from unlora.importance.published import PublishedSpace, estimate_published_importance, paired_rows
from unlora.starts.published_factors import published_factors
from unlora.starts.sizes import FLOAT32, BatchShape, Device, Layers
from unlora.starts.start import StartData, Started, StartInputs
from unlora.starts.weighted import Mapped


class Published(Mapped, ABC):
    """Measured on the whole forget set, each pass with as many retain examples drawn from the whole retain set."""

    batch_size: int = Field(default=4, ge=1)
    """Forget examples per backward pass."""
    passes: int = Field(default=10, ge=1)
    """Passes over the forget set."""
    accumulator_dtype: Literal["gradient", "float32", "bfloat16"] = "gradient"
    """Number format of the running sums; gradient, as released: the model's own."""

    needs_retain: ClassVar[bool] = True
    reads_rounded: ClassVar[bool] = False
    arithmetic: ClassVar[Literal["intact", "published"]] = "published"
    space: ClassVar[PublishedSpace]

    def measure(self, inputs: StartInputs) -> ImportanceMap:
        """All passes.

        Raises:
            InputError: there is no retain set, or the forget set makes a single batch.
        """
        data = inputs.data
        if data.retain is None:
            raise InputError(f"start '{self.kind}': needs data.retain (--retain FILE).")
        with inputs.task("Importance (published)", 2 * self.passes * len(data.forget)) as progress:
            return estimate_published_importance(
                inputs.model,
                data.forget,
                data.retain,
                space=self.space,
                pad_token_id=data.pad_token_id,
                target_modules=list(inputs.targets),
                rank=inputs.rank,
                scaling=inputs.scaling,
                passes=self.passes,
                batch_size=self.batch_size,
                accumulator_dtype=self.accumulator_dtype,
                seed=data.seed,
                data_sha256=data.sha256,
                model_fingerprint=inputs.fingerprint,
                progress=progress,
                **self._estimate_options(),
            )

    def _estimate_options(self) -> dict[str, Any]:
        """What this space has of its own."""
        return {}

    def begin(self, inputs: StartInputs, measured: ImportanceMap) -> Started:
        """The released decomposition of every layer."""
        with inputs.task("Starting factors", len(inputs.targets)) as progress:
            return Started(
                published_factors(
                    inputs.targets,
                    measured,
                    rank=inputs.rank,
                    scaling=inputs.scaling,
                    seed=inputs.data.seed,
                    progress=progress,
                )
            )

    def measured_batches(self, data: StartData) -> Iterator[Batch]:
        """Every pass anew."""
        forget, retain = data.forget, data.retain or []
        for forget_rows, retain_rows in paired_rows(len(forget), len(retain), self.passes, self.batch_size, data.seed):
            yield collate([forget[row] for row in forget_rows], data.pad_token_id)
            yield collate([retain[row] for row in retain_rows], data.pad_token_id)

    def number_bytes(self, device: Device) -> int:
        """Of one running sum."""
        if self.accumulator_dtype == "gradient":
            return device.number_bytes
        return getattr(torch, self.accumulator_dtype).itemsize

    def cheaper(self) -> list[dict[str, Any]]:
        """The marginals of the intact model."""
        return [{"kind": "marginal"}]


class PublishedFactors(Published):
    """VILA's: variances of a LoRA pair that stands in the network (arXiv 2508.21300)."""

    kind: str = "vila_published"
    probe_std: float = Field(default=0.05, gt=0)
    """Standard deviation of the pair's factors; it decides which network is measured."""

    space: ClassVar[PublishedSpace] = "lora_factors"

    def _estimate_options(self) -> dict[str, Any]:
        return {"probe_std": self.probe_std}

    def statistics_bytes(self, layers: Layers, rank: int, device: Device) -> int:
        """Sums of gradients and of their squares, for both sets."""
        return 2 * self.number_bytes(device) * 2 * rank * layers.width

    def statistics_flops(self, layers: Layers, batch: BatchShape, rank: int) -> float:
        """Products with both factors."""
        return 2.0 * batch.tokens * 2 * rank * layers.width

    def file_bytes(self, layers: Layers, rank: int, sets: int) -> int:
        """Both factors."""
        return FLOAT32 * sets * rank * layers.width


class PublishedWeights(Published):
    """FILA's, as VILA's code runs it: squared batch means of every weight's gradient (arXiv 2408.06621)."""

    kind: str = "fila_published"
    space: ClassVar[PublishedSpace] = "full_weights"

    def statistics_bytes(self, layers: Layers, rank: int, device: Device) -> int:
        """Sums of squares, for both sets."""
        return 2 * self.number_bytes(device) * layers.area

    def statistics_flops(self, layers: Layers, batch: BatchShape, rank: int) -> float:
        """A product as large as a gradient."""
        return 2.0 * batch.tokens * layers.area

    def file_bytes(self, layers: Layers, rank: int, sets: int) -> int:
        """Every weight."""
        return FLOAT32 * sets * layers.area
