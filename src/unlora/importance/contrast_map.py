"""Directions of each layer's outputs and inputs in which the forget set is, and the retain set is not."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from unlora.artifacts import write_tensors
from unlora.config import Config
from unlora.errors import InputError
from unlora.importance.accumulate import Batch, accumulate, reported
from unlora.importance.hooks import measuring
from unlora.importance.importance_map import SetCounts
from unlora.importance.sketch import GradientSketch
from unlora.importance.stored import read_map_file, refuse_other_shapes, refuse_other_weights, take_fields
from unlora.low_rank import contrast_directions
from unlora.models.choose import targets_of
from unlora.models.experts import ExpertModule, find_same_modules
from unlora.models.fingerprint import fingerprint
from unlora.models.target_modules import TargetModule

CONTRAST_SCHEMA = 1
SKETCH_COLUMNS = 128
"""Columns of the sketch of either set: more than any rank in use, and a fraction of a layer's width."""


@dataclass(frozen=True)
class ModuleContrast:
    """One module's leading directions, orthonormal, the strongest first."""

    inputs: Float[Tensor, "d_in rank"]
    input_eigenvalues: Float[Tensor, " rank"]
    """Forget share over damped retain share of the gradient energy, see `ContrastDirections`."""
    outputs: Float[Tensor, "d_out rank"] | None = None
    """None where only the inputs were measured."""
    output_eigenvalues: Float[Tensor, " rank"] | None = None


class ContrastMetadata(Config):
    """How the directions were found; written into the header of their file."""

    schema_version: int = CONTRAST_SCHEMA
    rank: int
    damping: float
    sketch_columns: int
    seed: int
    inputs_only: bool = False
    model_fingerprint: str | None
    """Hash of the measured model's weights."""
    module_shapes: dict[str, tuple[int, int]]
    """Canonical module name -> (d_out, d_in)."""
    forget: SetCounts
    retain: SetCounts | None


class ContrastMap(Mapping[str, ModuleContrast]):
    """Canonical module name -> directions, float32 on the CPU."""

    def __init__(self, modules: Mapping[str, ModuleContrast], metadata: ContrastMetadata) -> None:
        self._modules = dict(modules)
        self.metadata = metadata

    def __getitem__(self, name: str) -> ModuleContrast:
        return self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically; tensors are named "module|field"."""
        fields = _fields(self.metadata.inputs_only)
        tensors = {f"{name}|{field}": getattr(one, field) for name, one in self.items() for field in fields}
        write_tensors(path, tensors, {"kind": "contrast", **self.metadata.model_dump(mode="json")})

    @classmethod
    def load(cls, path: Path) -> "ContrastMap":
        """Read what `save` wrote.

        Raises:
            InputError: not a contrast file, another schema version, or incomplete.
        """
        what = "a contrast file; measure with --start contrast or contrast_inputs."
        tensors, header = read_map_file(path, "contrast", CONTRAST_SCHEMA, what=what)
        metadata = ContrastMetadata.from_mapping(header, where=str(path))
        fields = _fields(metadata.inputs_only)
        modules = {}
        for name, (d_out, d_in) in metadata.module_shapes.items():
            sizes = {"d_out": d_out, "d_in": d_in, "rank": metadata.rank}
            modules[name] = ModuleContrast(**take_fields(ModuleContrast, fields, tensors, name, sizes, path))
        return cls(modules, metadata)

    def refuse_unless_fits(
        self,
        module_shapes: Mapping[str, tuple[int, int]],
        *,
        fingerprint: str | None,
        rank: int,
        where: str,
        inputs_only: bool = False,
    ) -> None:
        """Refuse directions of another model, of other modules, or fewer of them than the adapter needs.

        Args:
            module_shapes: canonical name -> (d_out, d_in) of every module that needs directions.
            fingerprint: of the model's weights; None does not compare.
            rank: of the adapter to come.
            where: what the message calls the file.
            inputs_only: the adapter needs no output directions.

        Raises:
            InputError: naming the first difference.
        """
        refuse_other_shapes(self.metadata.module_shapes, module_shapes, "directions", where)
        if rank > self.metadata.rank:
            raise InputError(
                f"{where}: holds {self.metadata.rank} directions, the adapter's rank is {rank}; measure again."
            )
        if self.metadata.inputs_only and not inputs_only:
            raise InputError(f"{where}: holds input directions only, 'contrast' needs both; measure again.")
        refuse_other_weights(self.metadata.model_fingerprint, fingerprint, where)


def estimate_contrast(
    model: PreTrainedModel,
    forget_batches: Iterable[Batch],
    retain_batches: Iterable[Batch] | None,
    *,
    retain_model: PreTrainedModel | None = None,
    target_modules: Sequence[str] | None = None,
    rank: int = 8,
    damping: float = 1.0,
    sketch_columns: int = SKETCH_COLUMNS,
    seed: int = 0,
    inputs_only: bool = False,
    data_sha256: tuple[str | None, str | None] = (None, None),
    model_fingerprint: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> ContrastMap:
    """Find the directions in which the forget set has much more gradient energy than the retain set.

    With G the gradient of an example's mean completion loss with respect to a layer's weight, L = E[G G^T] and
    K = E[G^T G] over either set. The output directions are the leading generalised eigenvectors of
    (L_forget, L_retain + damping), the input directions those of (K_forget, K_retain + damping). L and K are sketched
    (`GradientSketch`), so neither is formed. The model is neither changed nor copied.

    Args:
        model: a causal language model; dropout is switched off while it is measured.
        forget_batches: dict batches of input_ids, attention_mask, labels (batch, token); labels -100 is not scored.
        retain_batches: the same for the retain set; None gives the forget set's leading directions alone.
        retain_model: another model with the same layers, which the retain set is measured on; the map stays `model`'s
            and does not say so.
        target_modules: names or patterns; by default every linear layer that can have an adapter of that rank.
        rank: directions of each kind.
        damping: of the retain matrix, in units of its mean eigenvalue.
        sketch_columns: columns of either sketch, at least `rank`; more is closer to the exact matrices.
        seed: of the sketch.
        inputs_only: leave the output directions out, for half the price; the input directions are the same.
        data_sha256: content hashes of the two sets, recorded.
        model_fingerprint: `fingerprint(model)`, where it is known: it takes a pass over the weights.
        progress: called with the number of examples of each finished batch, scored or not.

    Raises:
        InputError: no target module, other layers in `retain_model`, an empty set, more directions than a layer or the
            sketch has, a layer whose inputs do not keep the examples apart, or a gradient that is not finite.
    """
    targets = targets_of(model, target_modules, rank=rank)
    retain_model = model if retain_model is None else retain_model
    retain_targets = find_same_modules(retain_model, targets)
    if rank > sketch_columns:
        raise InputError(f"sketch_columns: {sketch_columns} cannot hold {rank} directions; use at least the rank.")

    def measure(
        measured: PreTrainedModel, layers: Mapping[str, TargetModule], batches: Iterable[Batch], which: int
    ) -> tuple[dict[str, GradientSketch], SetCounts]:
        set_name = ("forget", "retain")[which]
        sketches = {
            name: GradientSketch(
                f"{name}/{set_name}",
                (layer.d_out, layer.d_in),
                columns=sketch_columns,
                seed=seed,
                device=measured.device,
                inputs_only=inputs_only,
            )
            for name, layer in layers.items()
        }
        with measuring(measured):
            counts = accumulate(measured, layers, reported(batches, progress), sketches, set_name=set_name)
        if counts.example_count == 0:
            raise InputError(f"the {set_name} set has no example with a completion token; nothing can be measured.")
        return sketches, counts.model_copy(update={"data_sha256": data_sha256[which]})

    forget, forget_counts = measure(model, targets, forget_batches, 0)
    retain, retain_counts = {}, None
    if retain_batches is not None:
        retain, retain_counts = measure(retain_model, retain_targets, retain_batches, 1)
    modules = {
        name: _module_contrast(target, forget[name], retain.get(name), rank=rank, damping=damping)
        for name, target in targets.items()
    }
    metadata = ContrastMetadata(
        rank=rank,
        damping=damping,
        sketch_columns=sketch_columns,
        seed=seed,
        inputs_only=inputs_only,
        model_fingerprint=model_fingerprint or fingerprint(model),
        module_shapes={name: (target.d_out, target.d_in) for name, target in targets.items()},
        forget=forget_counts,
        retain=retain_counts,
    )
    return ContrastMap(modules, metadata)


def _module_contrast(
    target: TargetModule, forget: GradientSketch, retain: GradientSketch | None, *, rank: int, damping: float
) -> ModuleContrast:
    def directions(of_forget: Tensor, of_retain: Tensor | None) -> tuple[Tensor, Tensor]:
        try:
            found = contrast_directions(of_forget, of_retain, rank=rank, damping=damping)
        except InputError as error:
            raise InputError(f"target module '{target.name}': {error}") from None
        return found.basis.cpu(), found.eigenvalues.cpu()

    if isinstance(target, ExpertModule) and not forget.inputs.any():
        return _nothing(target, rank, inputs_only=forget.outputs is None)
    inputs = directions(forget.inputs, retain.inputs if retain is not None else None)
    if forget.outputs is None:
        return ModuleContrast(*inputs)
    return ModuleContrast(*inputs, *directions(forget.outputs, retain.outputs if retain is not None else None))


def _nothing(target: ExpertModule, rank: int, *, inputs_only: bool) -> ModuleContrast:
    """Of an expert that no token of the forget set was routed to: zeros, which stand for no direction."""
    inputs = torch.zeros(target.d_in, rank), torch.zeros(rank)
    return (
        ModuleContrast(*inputs) if inputs_only else ModuleContrast(*inputs, torch.zeros(target.d_out, rank), inputs[1])
    )


def _fields(inputs_only: bool) -> list[str]:
    return [field for field in ModuleContrast.__dataclass_fields__ if not (inputs_only and field.startswith("output"))]
