"""Importance of a model's linear layers for a forget and a retain set: one backward pass per batch, model intact."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from transformers import PreTrainedModel

from unlora.errors import InputError, nearest
from unlora.importance.accumulate import Batch, Sample, accumulate, reported
from unlora.importance.diagnostics import module_evidence
from unlora.importance.evidence import SetEvidence
from unlora.importance.hooks import measuring
from unlora.importance.importance_map import (
    ImportanceMap,
    ImportanceMetadata,
    ModuleImportance,
    SetCounts,
    SetImportance,
    set_importance,
)
from unlora.importance.moments import GradientUnit, Moments, Reduction, StatisticName
from unlora.importance.offload import DiskMoments, Offload, scratch_folder
from unlora.importance.spaces import (
    FullWeightStatistics,
    LoraFactorStatistics,
    MarginalStatistics,
    ModuleStatistics,
    SpaceName,
    virtual_factors,
)
from unlora.models.choose import targets_of
from unlora.models.experts import find_same_modules
from unlora.models.fingerprint import fingerprint
from unlora.models.target_modules import TargetModule


class ImportancePreset(NamedTuple):
    """A named point of the grid {statistic} x {space}."""

    statistic: StatisticName
    space: SpaceName
    summary: str


IMPORTANCE_PRESETS: dict[str, ImportancePreset] = {
    "marginal": ImportancePreset("variance", "marginals", "exact row and column variances of the full weights (ours)"),
    "vila": ImportancePreset("variance", "lora_factors", "variances of virtual LoRA factors (arXiv 2508.21300)"),
    "fila": ImportancePreset("second_moment", "full_weights", "squared gradients of every weight (arXiv 2408.06621)"),
    "variance_full": ImportancePreset("variance", "full_weights", "variances of every weight (ablation)"),
    "second_moment_lora": ImportancePreset(
        "second_moment", "lora_factors", "squared gradients of virtual LoRA factors (ablation)"
    ),
}


def estimate_importance(
    model: PreTrainedModel,
    forget_batches: Iterable[Batch],
    retain_batches: Iterable[Batch] | None,
    *,
    retain_model: PreTrainedModel | None = None,
    preset: str | None = None,
    statistic: StatisticName | None = None,
    space: SpaceName | None = None,
    gradient_unit: GradientUnit = "example",
    reduction: Reduction = "mean",
    target_modules: Sequence[str] | None = None,
    rank: int = 8,
    probe_std: float = 0.05,
    seed: int = 0,
    offload: Offload = "none",
    scratch: Path | None = None,
    data_sha256: tuple[str | None, str | None] = (None, None),
    model_fingerprint: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImportanceMap:
    """Measure how much each linear layer's weights matter to either set.

    The statistic is over samples g: the gradient of each example's loss l(x), or, with `gradient_unit="batch"`, one
    gradient a batch, of the mean of its scored examples' losses. The batches then decide the numbers: a variance over
    batches of n examples is about 1/n of one over examples, and every batch counts the same, so the examples of a
    smaller last batch weigh more. l(x) is the negative log-likelihood of an example's completion tokens, their mean or
    sum. The model is neither changed nor copied; its parameters get no gradients.

    Args:
        model: a causal language model; dropout is switched off while it is measured.
        forget_batches: dict batches of input_ids, attention_mask, labels (batch, token); labels -100 is not scored.
        retain_batches: the same for the retain set, or None when there is none.
        retain_model: another model with the same layers, which the retain set is measured on; the map stays `model`'s
            and does not say so.
        preset: a name of `IMPORTANCE_PRESETS`, instead of `statistic` and `space`.
        statistic: "second_moment" E[g^2] or "variance" E[g^2] - E[g]^2 (unbiased).
        space: "marginals", "lora_factors" or "full_weights".
        gradient_unit: "example" or "batch".
        reduction: "mean" or "sum".
        target_modules: names or patterns; by default every linear layer that can have an adapter of that rank.
        rank: columns of the virtual LoRA factors (lora_factors only).
        probe_std: their standard deviation; scales the numbers and nothing else.
        seed: of the virtual factors.
        offload: where the running sums of full weights lie (full_weights only; float32, the size of the layers, twice
            that for a variance): "none" beside the model, "host" in host memory, "disk" in files. The finished map is
            in host memory, after "disk" backed by files.
        scratch: folder for the temporary files of "disk"; None takes the user's cache. They are removed on every way
            out, and their space is free once the map is gone.
        data_sha256: content hashes of the two sets, recorded.
        model_fingerprint: `fingerprint(model)`, where it is known: it takes a pass over the weights.
        progress: called with the number of examples of each finished batch, scored or not.

    Raises:
        InputError: unknown preset or choice, no target module, other layers in `retain_model`, an empty set, a variance
            of a single sample, a layer whose inputs do not keep the examples apart, or a gradient that is not finite.
        UnloraError: the disk is full (offload "disk").
    """
    _refuse_unknown("statistic", statistic, get_args(StatisticName))
    _refuse_unknown("space", space, get_args(SpaceName))
    _refuse_unknown("gradient_unit", gradient_unit, get_args(GradientUnit))
    _refuse_unknown("reduction", reduction, get_args(Reduction))
    _refuse_unknown("offload", offload, get_args(Offload))
    statistic, space = _resolve(preset, statistic, space)
    choice = _Choice(statistic, space, Sample(gradient_unit, reduction), rank, probe_std, seed, offload)
    targets = targets_of(model, target_modules, rank=rank)
    on_disk = offload == "disk" and space == "full_weights"
    retain_model = model if retain_model is None else retain_model
    retain_targets = find_same_modules(retain_model, targets)
    with scratch_folder(scratch) if on_disk else nullcontext() as folder:
        forget_batches = reported(forget_batches, progress)
        forget, forget_counts = _measure(model, targets, forget_batches, choice, "forget", folder)
        retain, retain_counts = {}, None
        if retain_batches is not None:
            retain_batches = reported(retain_batches, progress)
            retain, retain_counts = _measure(retain_model, retain_targets, retain_batches, choice, "retain", folder)
            retain_counts = retain_counts.model_copy(update={"data_sha256": data_sha256[1]})

    metadata = ImportanceMetadata(
        statistic=statistic,
        space=space,
        gradient_unit=gradient_unit,
        reduction=reduction,
        rank=rank if space == "lora_factors" else None,
        probe_std=probe_std if space == "lora_factors" else None,
        seed=seed,
        model_fingerprint=model_fingerprint or fingerprint(model),
        module_shapes={target.name: (target.d_out, target.d_in) for target in targets.values()},
        forget=forget_counts.model_copy(update={"data_sha256": data_sha256[0]}),
        retain=retain_counts,
    )
    modules = {}
    for name in targets:
        (of_forget, forget_evidence), (of_retain, retain_evidence) = forget[name], retain.get(name, (None, None))
        modules[name] = ModuleImportance(of_forget, of_retain, module_evidence(forget_evidence, retain_evidence))
    return ImportanceMap(modules, metadata)


@dataclass(frozen=True)
class _Choice:
    """What is taken of either set, and where its sums lie."""

    statistic: StatisticName
    space: SpaceName
    sample: Sample
    rank: int
    probe_std: float
    seed: int
    offload: Offload

    def new_statistics(self, target: TargetModule, device: torch.device, file: Path | None) -> ModuleStatistics:
        """An empty accumulator for one module; `file` is for the sums of full weights, None keeps them in memory."""
        if self.space == "marginals":
            return MarginalStatistics()
        if self.space == "full_weights":
            centred = self.statistic == "variance"  # The second moment alone needs no mean: half the memory.
            if file is not None:
                return FullWeightStatistics(DiskMoments(file, centred=centred))
            place = torch.device("cpu") if self.offload == "host" else device
            return FullWeightStatistics(Moments(centred=centred, device=place))
        lora_a, lora_b = virtual_factors(
            target.name, target.d_out, target.d_in, rank=self.rank, probe_std=self.probe_std, seed=self.seed
        )
        return LoraFactorStatistics(lora_a.to(device), lora_b.to(device))


def _measure(
    model: PreTrainedModel,
    targets: Mapping[str, TargetModule],
    batches: Iterable[Batch],
    choice: _Choice,
    set_name: str,
    folder: Path | None,
) -> tuple[dict[str, tuple[SetImportance, SetEvidence]], SetCounts]:
    """One set: every module's record and evidence, and how much was seen."""
    statistics = {
        name: choice.new_statistics(
            target, model.device, folder / f"{set_name}-{index}.values" if folder is not None else None
        )
        for index, (name, target) in enumerate(targets.items())
    }
    with measuring(model):
        counts = accumulate(model, targets, batches, statistics, set_name=set_name, sample=choice.sample)
    if counts.example_count == 0:
        raise InputError(f"the {set_name} set has no example with a completion token; nothing can be measured.")
    if counts.sample_count == 1 and choice.statistic == "variance":
        raise InputError(
            f"the {set_name} set has a single {choice.sample.unit} with a completion token; a variance needs two: "
            "add examples, or take the statistic 'second_moment'."
        )
    records = {}
    for name in targets:
        module = statistics.pop(name)  # Its sums go once they are read: there is no second copy of all layers.
        records[name] = (set_importance(choice.space, module.read(choice.statistic)), module.evidence())
    return records, counts


def _resolve(
    preset: str | None, statistic: StatisticName | None, space: SpaceName | None
) -> tuple[StatisticName, SpaceName]:
    if preset is not None:
        if statistic is not None or space is not None:
            raise InputError("give either a preset or a statistic and a space, not both.")
        if preset not in IMPORTANCE_PRESETS:
            hint = nearest(preset, IMPORTANCE_PRESETS) or f" Known presets: {', '.join(IMPORTANCE_PRESETS)}."
            raise InputError(f"unknown importance preset '{preset}'.{hint}")
        return IMPORTANCE_PRESETS[preset].statistic, IMPORTANCE_PRESETS[preset].space
    if statistic is None or space is None:
        raise InputError("give a preset, or both a statistic and a space.")
    return statistic, space


def _refuse_unknown(key: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        hint = nearest(value, known) or f" Known: {', '.join(known)}."
        raise InputError(f"importance: unknown {key} '{value}'.{hint}")
