"""How much more a parameter matters to the forget set than to the retain set: M = I_forget / (I_retain + floor)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.importance.importance_map import (
    FactoredImportance,
    ImportanceMap,
    MarginalImportance,
    ModuleImportance,
    SetImportance,
)
from unlora.shapes import Weight

RELATIVE_FLOOR = 0.01
"""The floor is this share of the mean retain importance of the same layer (of its rows, its columns or its entries)."""

CHUNK_ENTRIES = 1 << 18
"""Entries of M that are formed at a time: a MiB in float32."""


@dataclass(frozen=True)
class ModuleRatio:
    """The ratio of one module, as weights of rows and columns of its weight matrix, and of its entries if asked for."""

    row_weights: Float[Tensor, " d_out"]
    column_weights: Float[Tensor, " d_in"]
    floored_fraction: float
    """Share of the denominators in which the floor exceeds the retain importance."""
    weights: Weight | None = None
    """M itself, (d_out, d_in). None unless asked for, and for marginals: theirs is row times column weights."""


def module_ratio(
    importance: ModuleImportance, relative_floor: float = RELATIVE_FLOOR, *, elementwise: bool = False
) -> ModuleRatio:
    """Ratio of one module.

    Marginals give a separable ratio: rows over rows times columns over columns. In the other spaces the row and column
    sums of M are returned (what FILA and VILA weight rows with); M itself only when `elementwise` asks for it, as large
    as the weight. From factors, and if it is not asked for, M is formed some rows at a time, which stay in the
    processor's cache. Without a retain set the denominator is one.
    """
    if isinstance(importance.forget, FactoredImportance) and not elementwise:
        return _factored_ratio(importance.forget, importance.retain, relative_floor)
    forget = _parts(importance.forget)
    retain = _parts(importance.retain) if importance.retain is not None else [None] * len(forget)
    divided = [_ratio(*parts, relative_floor) for parts in zip(forget, retain, strict=True)]
    ratios = [ratio for ratio, _ in divided]
    separable = len(ratios) == 2
    rows, columns = ratios if separable else (ratios[0].sum(dim=1), ratios[0].sum(dim=0))
    floored_fraction = sum(count for _, count in divided) / sum(ratio.numel() for ratio in ratios)
    return ModuleRatio(rows, columns, floored_fraction, ratios[0] if elementwise and not separable else None)


def _factored_ratio(forget: FactoredImportance, retain: SetImportance | None, relative_floor: float) -> ModuleRatio:
    """The sums of M = B_f A_f / (B_r A_r + floor), chunk by chunk."""
    d_out, d_in = len(forget.lora_b), forget.lora_a.shape[1]
    if not isinstance(retain, FactoredImportance):
        rows, columns = forget.lora_b @ forget.lora_a.sum(dim=1), forget.lora_b.sum(dim=0) @ forget.lora_a
        return ModuleRatio(rows, columns, 0.0)
    mean = retain.lora_b.sum(dim=0) @ retain.lora_a.sum(dim=1) / (d_out * d_in)
    floor = relative_floor * mean
    row_sums, column_sums, floored = [], torch.zeros_like(forget.lora_a[0]), 0
    step = max(CHUNK_ENTRIES // d_in, 1)
    for start in range(0, d_out, step):
        part = slice(start, start + step)
        ratio, count = _over(forget.lora_b[part] @ forget.lora_a, retain.lora_b[part] @ retain.lora_a, floor)
        row_sums.append(ratio.sum(dim=1))
        column_sums += ratio.sum(dim=0)
        floored += count
    return ModuleRatio(torch.cat(row_sums), column_sums, floored / (d_out * d_in))


def module_score(importance: ModuleImportance) -> float:
    """Total forget importance of a module over its total retain importance: how much the forget set lives there."""
    forget_total = _total(importance.forget)
    if importance.retain is None or forget_total == 0:
        return forget_total
    retain_total = _total(importance.retain)
    return forget_total / retain_total if retain_total > 0 else math.inf


def most_important_modules(importance: ImportanceMap, coverage: float) -> list[str]:
    """Names of the share `coverage` of modules with the highest score, in model order (arXiv 2508.21300, Table 10)."""
    count = max(1, round(coverage * len(importance)))
    ranked = sorted(importance, key=lambda name: module_score(importance[name]), reverse=True)
    chosen = set(ranked[:count])
    return [name for name in importance if name in chosen]


def _parts(importance: SetImportance) -> list[Tensor]:
    """What the ratio is taken of: rows and columns of marginals, the whole matrix otherwise."""
    if isinstance(importance, MarginalImportance):
        return [importance.rows, importance.columns]
    if isinstance(importance, FactoredImportance):
        return [importance.lora_b @ importance.lora_a]
    return [importance.values]


def _total(importance: SetImportance) -> float:
    return float(_parts(importance)[0].sum())


def _ratio(forget: Tensor, retain: Tensor | None, relative_floor: float) -> tuple[Tensor, int]:
    """Return the ratio and in how many denominators the floor exceeds the retain importance."""
    if retain is None:
        return forget, 0
    return _over(forget, retain, relative_floor * retain.mean())


def _over(forget: Tensor, retain: Tensor, floor: Tensor) -> tuple[Tensor, int]:
    if floor <= 0:  # The retain set does not touch this layer: there is nothing to divide by.
        return forget, retain.numel()
    return forget / (retain + floor), int((retain < floor).sum())
