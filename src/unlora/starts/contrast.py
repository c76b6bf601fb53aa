"""Starts in the directions that the forget set uses and the retain set does not (ours)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from unlora.importance.accumulate import Batch
from unlora.importance.contrast_map import SKETCH_COLUMNS, ContrastMap, estimate_contrast
from unlora.starts.contrast_factors import contrast_factors
from unlora.starts.diagnostics import contrast_line, contrast_record
from unlora.starts.sizes import FLOAT32, BatchShape, Device, Layers
from unlora.starts.start import Findings, Start, StartData, Started, StartInputs


class ContrastInputs(Start):
    """Inputs that the forget set uses and the retain set does not, for A, which stays there; B = 0."""

    kind: str = "contrast_inputs"
    damping: float = Field(default=1.0, gt=0)
    """Of the retain matrix, in units of its mean eigenvalue."""
    batch_size: int = Field(default=8, ge=1)
    """Examples per backward pass."""
    max_retain_examples: int = Field(default=400, ge=2)
    """Retain examples in the statistic, drawn with the run's seed; the forget set is always used whole."""
    file: str | None = None
    """A file made before by `unlora importance`, in place of measuring."""

    measures: ClassVar[bool] = True
    anchored: ClassVar[bool] = False
    freezes_a: ClassVar[bool] = True
    by_example: ClassVar[bool] = True
    takes_experts: ClassVar[bool] = True
    title: ClassVar[str] = "Contrast"
    sides: ClassVar[int] = 1
    """Of a layer that are measured: its inputs, or its outputs too."""

    def measure(self, inputs: StartInputs) -> ContrastMap:
        """One backward pass over the whole forget set and a sample of the retain set."""
        data = inputs.data
        with inputs.task("Contrast", data.count(self.max_retain_examples)) as progress:
            return estimate_contrast(
                inputs.model,
                data.forget_batches(self.batch_size),
                data.retain_batches(self.batch_size, self.max_retain_examples),
                target_modules=list(inputs.targets),
                rank=inputs.rank,
                damping=self.damping,
                inputs_only=self.sides == 1,
                seed=data.seed,
                data_sha256=data.sha256,
                model_fingerprint=inputs.fingerprint,
                progress=progress,
            )

    def load(self, path: Path) -> ContrastMap:
        """Read a contrast map."""
        return ContrastMap.load(path)

    def refuse_unless_fits(
        self,
        measured: ContrastMap,
        shapes: Mapping[str, tuple[int, int]],
        *,
        rank: int,
        fingerprint: str | None,
        where: str,
    ) -> None:
        """Refuse directions of another model or of other layers, and too few of them."""
        measured.refuse_unless_fits(
            shapes, fingerprint=fingerprint, rank=rank, where=where, inputs_only=self.sides == 1
        )

    def findings(self, measured: ContrastMap) -> Findings:
        """How far the forget set stands out."""
        ranked = sorted(measured, key=lambda name: float(measured[name].input_eigenvalues[0]), reverse=True)
        return Findings(
            [contrast_line(measured)], contrast_record(measured), "stands out most in: " + ", ".join(ranked[:5])
        )

    def begin(self, inputs: StartInputs, measured: ContrastMap) -> Started:
        """The directions, as long as the factors of the weights' best approximation."""
        with inputs.task("Starting factors", len(inputs.targets)) as progress:
            return Started(
                contrast_factors(
                    inputs.targets,
                    measured,
                    rank=inputs.rank,
                    scaling=inputs.scaling,
                    inputs_only=self.sides == 1,
                    seed=inputs.data.seed,
                    progress=progress,
                )
            )

    def measured_batches(self, data: StartData) -> Iterator[Batch]:
        """Both sets."""
        return data.both_batches(self.batch_size, self.max_retain_examples)

    def statistics_bytes(self, layers: Layers, rank: int, device: Device) -> int:
        """Of either set a sketch and, for both sides, its probes."""
        return FLOAT32 * 2 * self.sides * SKETCH_COLUMNS * layers.width

    def statistics_flops(self, layers: Layers, batch: BatchShape, rank: int) -> float:
        """Products with the sketch's columns."""
        return 2.0 * batch.tokens * self.sides * SKETCH_COLUMNS * layers.width

    def file_bytes(self, layers: Layers, rank: int, sets: int) -> int:
        """Directions and their eigenvalues."""
        width = layers.inputs if self.sides == 1 else layers.width
        return FLOAT32 * rank * (width + self.sides * layers.modules)

    def cheaper(self) -> list[dict[str, object]]:
        """Single examples."""
        return [{"batch_size": 1}]


class Contrast(ContrastInputs):
    """Inputs for A and outputs for B that the forget set uses and the retain set does not; both are trained."""

    kind: str = "contrast"

    anchored: ClassVar[bool] = True
    freezes_a: ClassVar[bool] = False
    sides: ClassVar[int] = 2
