"""Whether a map can be trusted and says anything: stability, spread, floor, the squared mean, where the forget set is.

Everything is read from the map and what it keeps beside (`ModuleEvidence`); nothing is measured again.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, median

import numpy
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from unlora.config import Config
from unlora.importance.evidence import ModuleEvidence, SetEvidence
from unlora.importance.importance_map import (
    FactoredImportance,
    ImportanceMap,
    MarginalImportance,
    ModuleImportance,
    SetImportance,
)
from unlora.importance.ratio import module_ratio
from unlora.results import finite_or_none

RowWeights = Callable[[str], tuple[Float[Tensor, " d_out"], float]]
"""Module name -> row weights, and the share of their denominators that the floor ruled."""

FLAT_GINI = 0.05
"""Row weights with a smaller Gini coefficient are flat: as even as if they lay within 15 % of their mean."""
UNSTABLE = 0.3
"""Below this rank correlation of two halves, in the median layer, the order of the rows is mostly chance."""


class ModuleDiagnostics(ModuleEvidence):
    """One module; None where a number is not defined or the map keeps nothing to tell it by."""

    name: str
    """Canonical."""
    floored_fraction: float
    """Share of the ratio's denominators that the floor ruled: near 1, the retain set has no say."""
    dynamic_range: float | None
    """95th percentile of the row weights over the 5th: 1 = all rows weigh the same. None where the 5th is 0."""
    gini: float | None
    """Gini coefficient of the row weights: 0 = all the same, towards 1 = one row has everything."""
    forget_energy: float
    """Total of the statistic over the module."""
    retain_energy: float | None
    """The same of the retain set."""


class MapSummary(Config):
    """The map in a few numbers: medians over its modules unless said otherwise; fields as in `ModuleDiagnostics`."""

    module_count: int
    floored_fraction: float
    """Mean over the modules."""
    dynamic_range: float | None
    gini: float | None
    forget_stability: float | None
    retain_stability: float | None
    ratio_stability: float | None
    forget_squared_mean: float | None
    retain_squared_mean: float | None
    flat_module_count: int
    """Modules whose row weights are nearly uniform."""
    by_depth: dict[str, float]
    """Block number -> its forget energy over its retain energy, relative to the whole map's: above 1 = the forget set
    matters more here than the retain set does. Empty without a retain set."""
    by_projection: dict[str, float]
    """The same by the name of the projection, over all blocks."""
    warnings: tuple[str, ...]
    """What a user should know before relying on the map."""


class MapDiagnostics(Config):
    """Of a whole map."""

    modules: tuple[ModuleDiagnostics, ...]
    """In model order."""
    summary: MapSummary


def diagnose(importance: ImportanceMap, row_weights: RowWeights | None = None) -> MapDiagnostics:
    """Diagnose a map.

    Args:
        importance: the map.
        row_weights: the weights that will be used, where they are not those of `module_ratio`.
    """

    def by_ratio(name: str) -> tuple[Tensor, float]:
        ratio = module_ratio(importance[name])
        return ratio.row_weights, ratio.floored_fraction

    weights_of = row_weights or by_ratio
    modules = tuple(_diagnose_module(name, importance[name], *weights_of(name)) for name in importance)
    return MapDiagnostics(modules=modules, summary=_summarise(modules))


def gini(weights: Float[Tensor, " row"]) -> float:
    """Gini coefficient of weights that are not negative: 0 = all the same, 1 - 1/n = one has everything.

    NaN where all are 0.
    """
    ordered = weights.double().sort().values
    ranks = 2 * torch.arange(1, len(ordered) + 1, dtype=torch.float64, device=ordered.device) - len(ordered) - 1
    return float((ranks * ordered).sum() / (len(ordered) * ordered.sum()))


def dynamic_range(weights: Float[Tensor, " row"]) -> float:
    """95th percentile over the 5th, interpolated; infinite where the 5th is 0, NaN where both are."""
    low, high = weights.double().quantile(torch.tensor([0.05, 0.95], dtype=torch.float64, device=weights.device))
    return float(high / low)


def rank_correlation(first: Float[Tensor, " row"], second: Float[Tensor, " row"]) -> float:
    """Spearman; NaN where either is constant or holds a NaN."""
    constant = any(bool(one.isnan().any()) or bool((one == one[0]).all()) for one in (first, second))
    return math.nan if constant else float(numpy.corrcoef(rankdata(first.numpy()), rankdata(second.numpy()))[0, 1])


def module_evidence(forget: SetEvidence, retain: SetEvidence | None) -> ModuleEvidence:
    """Reduce what both sets say to a few numbers; `retain` is None without a retain set."""
    return ModuleEvidence(
        forget_stability=finite_or_none(rank_correlation(*forget.halves)),
        retain_stability=finite_or_none(rank_correlation(*retain.halves)) if retain is not None else None,
        ratio_stability=_ratio_stability(forget, retain) if retain is not None else None,
        forget_squared_mean=finite_or_none(float(forget.squared_mean_share)),
        retain_squared_mean=finite_or_none(float(retain.squared_mean_share)) if retain is not None else None,
    )


def _ratio_stability(forget: SetEvidence, retain: SetEvidence) -> float | None:
    ratios = []
    for rows in zip(forget.halves, retain.halves, strict=True):
        of_forget, of_retain = (MarginalImportance(rows=one, columns=one) for one in rows)
        ratios.append(module_ratio(ModuleImportance(of_forget, of_retain)).row_weights)
    return finite_or_none(rank_correlation(*ratios))


def _diagnose_module(
    name: str, importance: ModuleImportance, weights: Float[Tensor, " d_out"], floored_fraction: float
) -> ModuleDiagnostics:
    known = importance.evidence.model_dump() if importance.evidence is not None else {}
    return ModuleDiagnostics(
        name=name,
        floored_fraction=floored_fraction,
        dynamic_range=finite_or_none(dynamic_range(weights)),
        gini=finite_or_none(gini(weights)),
        forget_energy=_energy(importance.forget),
        retain_energy=_energy(importance.retain) if importance.retain is not None else None,
        **known,
    )


def _energy(importance: SetImportance) -> float:
    if isinstance(importance, MarginalImportance):
        return float(importance.rows.sum())
    if isinstance(importance, FactoredImportance):
        return float(importance.lora_b.sum(dim=0) @ importance.lora_a.sum(dim=1))
    return float(importance.values.sum())


def _summarise(modules: Sequence[ModuleDiagnostics]) -> MapSummary:
    def middle(field: str) -> float | None:
        known = [value for module in modules if (value := getattr(module, field)) is not None]
        return median(known) if known else None

    flat = [module.name for module in modules if module.gini is not None and module.gini < FLAT_GINI]
    medians = {
        field: middle(field)
        for field in (
            "dynamic_range",
            "gini",
            "forget_stability",
            "retain_stability",
            "ratio_stability",
            "forget_squared_mean",
            "retain_squared_mean",
        )
    }
    return MapSummary(
        module_count=len(modules),
        floored_fraction=fmean(module.floored_fraction for module in modules),
        **medians,
        flat_module_count=len(flat),
        by_depth=_relative_energy(modules, lambda place: place[0]),
        by_projection=_relative_energy(modules, lambda place: place[1]),
        warnings=tuple(_warnings(len(modules), flat, medians)),
    )


def _place(name: str) -> tuple[str, str]:
    """Block number and projection: "model.layers.3.mlp.up_proj" is ("3", "mlp.up_proj"), "head" is ("", "head")."""
    parts = re.split(r"(?:^|\.)(\d+)\.", name, maxsplit=1)
    return ("", name) if len(parts) == 1 else (parts[1], parts[2])


def _relative_energy(
    modules: Sequence[ModuleDiagnostics], group_of: Callable[[tuple[str, str]], str]
) -> dict[str, float]:
    forget: dict[str, float] = {}
    retain: dict[str, float] = {}
    for module in modules:
        group = group_of(_place(module.name))
        forget[group] = forget.get(group, 0.0) + module.forget_energy
        retain[group] = retain.get(group, 0.0) + (module.retain_energy or 0.0)
    whole = sum(forget.values()) / sum(retain.values()) if sum(retain.values()) > 0 else 0.0
    return {group: forget[group] / retain[group] / whole for group in forget if retain[group] > 0 and whole > 0}


def _warnings(module_count: int, flat: Sequence[str], medians: dict[str, float | None]) -> Iterable[str]:
    if flat:
        where = f"all {module_count} modules" if len(flat) == module_count else f"{len(flat)} of {module_count} modules"
        yield (
            f"row weights are nearly uniform (Gini below {FLAT_GINI}) in {where}, such as '{flat[0]}': importance says "
            "no more there than the start 'uniform' would"
        )
    stability = medians["ratio_stability"] if medians["ratio_stability"] is not None else medians["forget_stability"]
    if stability is not None and stability < UNSTABLE:
        yield (
            f"two halves of the examples rank the rows differently (Spearman {stability:.2f} in the median layer): too "
            "few examples to rely on the ranking"
        )
