"""Importance of a model's linear layers for a forget and a retain set: one backward pass per batch, model intact."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from transformers import PreTrainedModel

from unlora.errors import InputError, nearest
from unlora.importance.accumulate import Batch, accumulate
from unlora.importance.hooks import measuring
from unlora.importance.importance_map import (
    ImportanceMap,
    ImportanceMetadata,
    ModuleImportance,
    SetCounts,
    SetImportance,
    set_importance,
)
from unlora.importance.moments import StatisticName
from unlora.importance.spaces import (
    FullWeightStatistics,
    LoraFactorStatistics,
    MarginalStatistics,
    ModuleStatistics,
    SpaceName,
    virtual_factors,
)
from unlora.models.load import fingerprint
from unlora.models.target_modules import TargetModule, find_target_modules


class ImportancePreset(NamedTuple):
    """A named point of the grid {statistic} x {space}."""

    statistic: StatisticName
    space: SpaceName
    summary: str


IMPORTANCE_PRESETS: dict[str, ImportancePreset] = {
    "marginal": ImportancePreset("variance", "marginals", "exact row and column variances of the full weights (ours)"),
    "vila": ImportancePreset("variance", "lora_factors", "variances of virtual LoRA factors (arXiv 2508.21300)"),
    "fila": ImportancePreset("second_moment", "full_weights", "squared gradients of every weight (arXiv 2408.06621)"),
}


def estimate_importance(
    model: PreTrainedModel,
    forget_batches: Iterable[Batch],
    retain_batches: Iterable[Batch] | None,
    *,
    preset: str | None = None,
    statistic: StatisticName | None = None,
    space: SpaceName | None = None,
    target_modules: Sequence[str] | None = None,
    rank: int = 8,
    probe_std: float = 0.05,
    seed: int = 0,
    data_sha256: tuple[str | None, str | None] = (None, None),
    progress: Callable[[int], None] | None = None,
) -> ImportanceMap:
    """Measure how much each linear layer's weights matter to either set.

    The statistic is over examples: l(x) is the mean negative log-likelihood of an example's completion tokens and
    g its gradient. The model is neither changed nor copied; its parameters get no gradients.

    Args:
        model: a causal language model; dropout is switched off while it is measured.
        forget_batches: dict batches of input_ids, attention_mask, labels (batch, token); labels -100 is not scored.
        retain_batches: the same for the retain set, or None when there is none.
        preset: a name of `IMPORTANCE_PRESETS`, instead of `statistic` and `space`.
        statistic: "second_moment" E[g^2] or "variance" E[g^2] - E[g]^2 (unbiased).
        space: "marginals", "lora_factors" or "full_weights".
        target_modules: names or patterns; by default every linear layer but the output head.
        rank: columns of the virtual LoRA factors (lora_factors only).
        probe_std: their standard deviation; scales the numbers and nothing else.
        seed: of the virtual factors.
        data_sha256: content hashes of the two sets, recorded.
        progress: called with the number of examples of each finished batch, scored or not.

    Raises:
        InputError: unknown preset, no target module, an empty set, a variance of a single example, or a layer whose
            inputs do not keep the examples apart.
    """
    statistic, space = _resolve(preset, statistic, space)
    targets = find_target_modules(model, target_modules)

    def new_statistics(target: TargetModule) -> ModuleStatistics:
        if space == "marginals":
            return MarginalStatistics()
        if space == "full_weights":
            return FullWeightStatistics()
        lora_a, lora_b = virtual_factors(
            target.name, target.d_out, target.d_in, rank=rank, probe_std=probe_std, seed=seed
        )
        return LoraFactorStatistics(lora_a.to(model.device), lora_b.to(model.device))

    def measure(batches: Iterable[Batch], name: str, sha256: str | None) -> tuple[dict[str, SetImportance], SetCounts]:
        statistics = {target.name: new_statistics(target) for target in targets.values()}
        counts = accumulate(model, targets, batches, statistics, progress)
        if counts.example_count == 0:
            raise InputError(f"the {name} set has no example with a completion token; nothing can be measured.")
        if counts.example_count == 1 and statistic == "variance":
            raise InputError(
                f"the {name} set has a single example with a completion token; a variance needs two: add examples, or "
                "take the statistic 'second_moment'."
            )
        records = {key: set_importance(space, value.read(statistic)) for key, value in statistics.items()}
        return records, counts.model_copy(update={"data_sha256": sha256})

    with measuring(model):
        forget, forget_counts = measure(forget_batches, "forget", data_sha256[0])
        retain, retain_counts = (None, None)
        if retain_batches is not None:
            retain, retain_counts = measure(retain_batches, "retain", data_sha256[1])

    metadata = ImportanceMetadata(
        statistic=statistic,
        space=space,
        rank=rank if space == "lora_factors" else None,
        probe_std=probe_std if space == "lora_factors" else None,
        seed=seed,
        model_fingerprint=fingerprint(model),
        module_shapes={target.name: (target.d_out, target.d_in) for target in targets.values()},
        forget=forget_counts,
        retain=retain_counts,
    )
    modules = {name: ModuleImportance(forget[name], retain[name] if retain else None) for name in targets}
    return ImportanceMap(modules, metadata)


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
