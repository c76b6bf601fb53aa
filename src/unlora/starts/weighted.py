"""Starts that approximate the weights under the ratio of forget to retain importance."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from unlora.importance.accumulate import Batch
from unlora.importance.estimate import estimate_importance
from unlora.importance.importance_map import ImportanceMap
from unlora.importance.ratio import module_score, most_important_modules
from unlora.importance.spaces import SpaceName
from unlora.starts.diagnostics import diagnose_as_measured, diagnostic_lines, map_record
from unlora.starts.initialise import initial_factors
from unlora.starts.sizes import FLOAT32, BatchShape, Device, Layers
from unlora.starts.start import Findings, Start, StartData, Started, StartInputs


class Mapped(Start):
    """What all starts share that an importance map decides."""

    file: str | None = None
    """An importance file made before by `unlora importance`, in place of measuring."""

    measures: ClassVar[bool] = True
    by_example: ClassVar[bool] = True
    ranks_modules: ClassVar[bool] = True
    title: ClassVar[str] = "Importance"
    arithmetic: ClassVar[Literal["intact", "published"]]

    def load(self, path: Path) -> ImportanceMap:
        """Read an importance map."""
        return ImportanceMap.load(path)

    def refuse_unless_fits(
        self,
        measured: ImportanceMap,
        shapes: Mapping[str, tuple[int, int]],
        *,
        rank: int,
        fingerprint: str | None,
        where: str,
    ) -> None:
        """Refuse a map of another model or of other layers, or one that was measured by the other arithmetic."""
        measured.refuse_unless_fits(shapes, fingerprint=fingerprint, rank=rank, arithmetic=self.arithmetic, where=where)

    def findings(self, measured: ImportanceMap) -> Findings:
        """How much the map can be trusted, and where the forget set lives."""
        found = diagnose_as_measured(measured)
        ranked = sorted(measured, key=lambda name: module_score(measured[name]), reverse=True)
        return Findings(
            diagnostic_lines(measured.metadata, found),
            map_record(measured, found),
            "most of the forget set's share: " + ", ".join(ranked[:5]),
        )

    def kept_modules(self, measured: ImportanceMap, names: Sequence[str], coverage: float) -> list[str]:
        """The share `coverage` of the layers, the most important first."""
        chosen = set(most_important_modules(measured, coverage))
        return [name for name in names if name in chosen]


class Weighted(Mapped, ABC):
    """Weights approximated under the importance ratio of the intact model."""

    statistic: Literal["second_moment", "variance"] = "variance"
    """E[g^2] or its centred form."""
    solver: Literal["row", "separable", "elementwise"] = "row"
    """What of the ratio weights the approximation: its row sums, row and column sums, or every entry."""
    shuffle_rows: bool = False
    """Shuffle the rows of the weights: a control for importance."""
    gradient_unit: Literal["example", "batch"] = "example"
    """What one sample of the statistic is: an example's gradient, or that of the mean loss of a batch."""
    reduction: Literal["mean", "sum"] = "mean"
    """Whether an example's loss is the mean or the sum over its completion tokens."""
    batch_size: int = Field(default=8, ge=1)
    """Examples per backward pass."""
    max_retain_examples: int = Field(default=64, ge=2)
    """Retain examples in the statistic, drawn with the run's seed; the forget set is always used whole."""

    arithmetic: ClassVar[Literal["intact", "published"]] = "intact"
    takes_experts: ClassVar[bool] = True
    space: ClassVar[SpaceName]

    def fewest_examples(self) -> int:
        """A variance needs two."""
        return 2 if self.statistic == "variance" else 1

    def measure(self, inputs: StartInputs) -> ImportanceMap:
        """One backward pass over the whole forget set and a sample of the retain set."""
        data = inputs.data
        with inputs.task("Importance", data.count(self.max_retain_examples)) as progress:
            return estimate_importance(
                inputs.model,
                data.forget_batches(self.batch_size),
                data.retain_batches(self.batch_size, self.max_retain_examples),
                statistic=self.statistic,
                space=self.space,
                gradient_unit=self.gradient_unit,
                reduction=self.reduction,
                target_modules=list(inputs.targets),
                rank=inputs.rank,
                seed=data.seed,
                data_sha256=data.sha256,
                model_fingerprint=inputs.fingerprint,
                progress=progress,
                **self._estimate_options(inputs),
            )

    def _estimate_options(self, inputs: StartInputs) -> dict[str, Any]:
        """What this space has of its own."""
        return {}

    def begin(self, inputs: StartInputs, measured: ImportanceMap) -> Started:
        """Solve the weighted approximation of every layer."""
        with inputs.task("Starting factors", len(inputs.targets)) as progress:
            return Started(
                initial_factors(
                    inputs.targets,
                    measured,
                    rank=inputs.rank,
                    scaling=inputs.scaling,
                    solver=self.solver,
                    shuffle_rows=self.shuffle_rows,
                    seed=inputs.data.seed,
                    progress=progress,
                )
            )

    def measured_batches(self, data: StartData) -> Iterator[Batch]:
        """Both sets."""
        return data.both_batches(self.batch_size, self.max_retain_examples)

    @abstractmethod
    def statistics_bytes(self, layers: Layers, rank: int, device: Device) -> int:
        """Running sums at their most: the retain set's, with what is left of the forget set's."""

    def cheaper(self) -> list[dict[str, Any]]:
        """Single examples where that changes nothing; then the marginals."""
        single = [{"batch_size": 1}] if self.gradient_unit == "example" else []
        return [*single, {"kind": "marginal"}]


class Marginals(Weighted):
    """Rows weighted by exact row sums of the full weights' statistic (ours, after VILA)."""

    kind: str = "marginal"
    space: ClassVar[SpaceName] = "marginals"

    def statistics_bytes(self, layers: Layers, rank: int, device: Device) -> int:
        """Row and column sums, and a mean."""
        return FLOAT32 * (2 * layers.outputs + layers.inputs + 2 * layers.width)

    def statistics_flops(self, layers: Layers, batch: BatchShape, rank: int) -> float:
        """Gram matrices of both sides and their use, and a product as large as a gradient on every fourth batch."""
        return 2.0 * batch.tokens * (min(2 * batch.length * layers.width, layers.area) + layers.area / 4)

    def file_bytes(self, layers: Layers, rank: int, sets: int) -> int:
        """Rows and columns."""
        return FLOAT32 * sets * layers.width


class VirtualFactors(Weighted):
    """Rows weighted by the statistic of virtual LoRA factors (VILA, arXiv 2508.21300, on the intact model)."""

    kind: str = "vila"
    probe_std: float = Field(default=0.05, gt=0)
    """Standard deviation of the virtual factors."""

    space: ClassVar[SpaceName] = "lora_factors"

    def _estimate_options(self, inputs: StartInputs) -> dict[str, Any]:
        return {"probe_std": self.probe_std}

    def statistics_bytes(self, layers: Layers, rank: int, device: Device) -> int:
        """The forget set's record, the retain set's moments, and the factors."""
        return FLOAT32 * (1 + 2 + 1) * rank * layers.width

    def statistics_flops(self, layers: Layers, batch: BatchShape, rank: int) -> float:
        """Products with both factors."""
        return 2.0 * batch.tokens * 2 * rank * layers.width

    def file_bytes(self, layers: Layers, rank: int, sets: int) -> int:
        """Both factors."""
        return FLOAT32 * sets * rank * layers.width


class FullWeights(Weighted):
    """Rows weighted by the statistic of every weight (FILA, arXiv 2408.06621, for second moments)."""

    kind: str = "variance_full"
    offload: Literal["none", "host", "disk"] = "none"
    """Where the running sums lie: beside the model, in host memory, or in files of the run folder."""

    space: ClassVar[SpaceName] = "full_weights"

    def _estimate_options(self, inputs: StartInputs) -> dict[str, Any]:
        return {"offload": self.offload, "scratch": inputs.scratch}

    def statistics_bytes(self, layers: Layers, rank: int, device: Device) -> int:
        """One layer's own moments, and where nothing else holds them the sums of all."""
        beside_model = self.offload == "none" or (self.offload == "host" and device.is_host)
        moments = 2 if self.statistic == "variance" else 1
        return FLOAT32 * (3 * layers.largest + ((1 + moments) * layers.area if beside_model else 0))

    def statistics_flops(self, layers: Layers, batch: BatchShape, rank: int) -> float:
        """A product as large as a gradient for every example."""
        return 2.0 * batch.tokens * layers.area

    def file_bytes(self, layers: Layers, rank: int, sets: int) -> int:
        """Every weight."""
        return FLOAT32 * sets * layers.area

    def cheaper(self) -> list[dict[str, Any]]:
        """Sums on the disk first."""
        return [{"offload": "disk"}, *super().cheaper()]
