"""Importance of each target module for the forget and the retain set, with what is needed to trust or refuse it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.artifacts import write_tensors
from unlora.config import Config
from unlora.errors import InputError
from unlora.importance.arithmetic import PublishedArithmetic
from unlora.importance.evidence import ModuleEvidence
from unlora.importance.moments import GradientUnit, Reduction, StatisticName
from unlora.importance.spaces import SpaceName
from unlora.importance.stored import read_map_file, refuse_other_shapes, refuse_other_weights, take_fields
from unlora.shapes import LoraA, LoraB

IMPORTANCE_SCHEMA = 1
EVIDENCE = "evidence"
"""Key of the header: module name -> `ModuleEvidence`."""


@dataclass(frozen=True)
class MarginalImportance:
    """Row and column sums of a full-weight statistic."""

    rows: Float[Tensor, " d_out"]
    columns: Float[Tensor, " d_in"]


@dataclass(frozen=True)
class FactoredImportance:
    """The statistic of the gradients of two LoRA factors; Var[dW] ~ lora_b @ lora_a (arXiv 2508.21300, Theorem 1)."""

    lora_b: LoraB
    lora_a: LoraA


@dataclass(frozen=True)
class FullImportance:
    """The statistic of every weight."""

    values: Float[Tensor, "d_out d_in"]


SetImportance = MarginalImportance | FactoredImportance | FullImportance

_RECORDS: dict[SpaceName, type[MarginalImportance] | type[FactoredImportance] | type[FullImportance]] = {
    "marginals": MarginalImportance,
    "lora_factors": FactoredImportance,
    "full_weights": FullImportance,
}


@dataclass(frozen=True)
class ModuleImportance:
    """One module's importance for both sets; `retain` is None where no retain set was given."""

    forget: SetImportance
    retain: SetImportance | None
    evidence: ModuleEvidence | None = None
    """None in a map whose maker kept none."""


class SetCounts(Config):
    """How much was seen of one set."""

    example_count: int
    """Examples in the statistic."""
    token_count: int
    """Completion tokens whose loss was taken."""
    unscored_count: int
    """Examples without a completion token: counted here, in no statistic."""
    data_sha256: str | None = None
    """Hash of the set's content, where the caller knows it."""
    sample_count: int | None = None
    """Gradients in the statistic: one an example, or one a batch with a scored example; None in older files."""


class ImportanceMetadata(Config):
    """How a map was made; written into the header of its file."""

    schema_version: int = IMPORTANCE_SCHEMA
    statistic: StatisticName
    space: SpaceName
    gradient_unit: GradientUnit = "example"
    """What a sample is the gradient of: an example's loss, or the mean of a batch's, every batch counting the same."""
    reduction: Reduction | Literal["token_mean_of_batch"] = "mean"
    """Whether an example's loss is the mean or the sum over its completion tokens; the released code has neither."""
    rank: int | None
    """Rank of the virtual factors (lora_factors only)."""
    probe_std: float | None
    """Standard deviation of the virtual factors; it scales the numbers and nothing else."""
    seed: int
    model_fingerprint: str | None
    """Hash of the measured model's weights."""
    module_shapes: dict[str, tuple[int, int]]
    """Canonical module name -> (d_out, d_in)."""
    forget: SetCounts
    retain: SetCounts | None
    published: PublishedArithmetic | None = None
    """How the released procedure was run; None for a map measured on the intact model."""


class ImportanceMap(Mapping[str, ModuleImportance]):
    """Canonical module name -> importance, float32 on the CPU."""

    def __init__(self, modules: Mapping[str, ModuleImportance], metadata: ImportanceMetadata) -> None:
        self._modules = dict(modules)
        self.metadata = metadata

    @property
    def modules(self) -> list[str]:
        """Canonical module names, in model order."""
        return list(self._modules)

    def __getitem__(self, name: str) -> ModuleImportance:
        return self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically: tensors named "module|set|field", all else in its header."""
        tensors: dict[str, Tensor] = {}
        for name, importance in self._modules.items():
            for set_name in ("forget", "retain"):
                record = getattr(importance, set_name)
                for field, tensor in vars(record).items() if record is not None else ():
                    tensors[f"{name}|{set_name}|{field}"] = tensor
        kept = {name: one.evidence.model_dump() for name, one in self._modules.items() if one.evidence is not None}
        header = {"kind": "importance", EVIDENCE: kept, **self.metadata.model_dump(mode="json")}
        write_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: Path) -> "ImportanceMap":
        """Read what `save` wrote; the tensors are backed by the file, whose pages come in when they are touched.

        Raises:
            InputError: not an importance file, another schema version, or incomplete.
        """
        tensors, header = read_map_file(path, "importance", IMPORTANCE_SCHEMA, what="an importance file.")
        evidence = header.pop(EVIDENCE, {})
        if not isinstance(evidence, dict) or not all(isinstance(one, dict) for one in evidence.values()):
            raise InputError(f"{path}, {EVIDENCE}: must be a mapping of modules to mappings.")
        kept = {name: ModuleEvidence.from_mapping(one, where=f"{path}, {EVIDENCE}") for name, one in evidence.items()}
        metadata = ImportanceMetadata.from_mapping(header, where=str(path))
        modules = {
            name: _module_importance(name, tensors, metadata, kept.get(name), path) for name in metadata.module_shapes
        }
        return cls(modules, metadata)

    def refuse_unless_fits(
        self,
        module_shapes: Mapping[str, tuple[int, int]],
        *,
        fingerprint: str | None,
        rank: int | None = None,
        arithmetic: str | None = None,
        where: str,
    ) -> None:
        """Refuse a map of another model, of other modules or of virtual factors of another rank.

        Args:
            module_shapes: canonical name -> (d_out, d_in) of every module that needs importance.
            fingerprint: of the model's weights; None does not compare.
            rank: of the adapter to come; None does not compare. Only `lora_factors` is measured with a rank.
            arithmetic: "intact" or "published", as the settings ask; None does not compare.
            where: what the message calls the map.

        Raises:
            InputError: naming the first difference.
        """
        refuse_other_shapes(self.metadata.module_shapes, module_shapes, "importance", where)
        measured_rank = self.metadata.rank
        if rank is not None and measured_rank is not None and measured_rank != rank:
            raise InputError(
                f"{where}: measured with virtual factors of rank {measured_rank}, the adapter's rank is {rank}; "
                "measure again, or use the same rank."
            )
        measured_by = "intact" if self.metadata.published is None else "published"
        if arithmetic is not None and measured_by != arithmetic:
            raise InputError(
                f"{where}: measured with the {measured_by} arithmetic, and the start has the {arithmetic} one; measure "
                "again, or choose the start that it was measured for."
            )
        refuse_other_weights(self.metadata.model_fingerprint, fingerprint, where)


def _module_importance(
    name: str, tensors: dict[str, Tensor], metadata: ImportanceMetadata, evidence: ModuleEvidence | None, path: Path
) -> ModuleImportance:
    d_out, d_in = metadata.module_shapes[name]
    sizes = {"d_out": d_out, "d_in": d_in, "rank": metadata.rank}

    def record(set_name: str) -> SetImportance:
        kind = _RECORDS[metadata.space]
        return kind(**take_fields(kind, kind.__dataclass_fields__, tensors, f"{name}|{set_name}", sizes, path))

    return ModuleImportance(record("forget"), record("retain") if metadata.retain is not None else None, evidence)


def set_importance(space: SpaceName, tensors: Mapping[str, Tensor]) -> SetImportance:
    """Wrap a reading of `ModuleStatistics` in the record of its space, as float32 on the CPU."""
    return _RECORDS[space](**{field: tensor.to("cpu", torch.float32) for field, tensor in tensors.items()})
