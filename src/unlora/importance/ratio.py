"""How much more a parameter matters to the forget set than to the retain set: M = I_forget / (I_retain + floor)."""

import math
from dataclasses import dataclass

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

    Marginals give a separable ratio: rows over rows times columns over columns. In the other spaces M is formed for
    this module alone and its row and column sums are returned (what FILA and VILA weight rows with); M itself only
    when `elementwise` asks for it, as large as the weight. Without a retain set the denominator is one.
    """
    forget = _parts(importance.forget)
    retain = _parts(importance.retain) if importance.retain is not None else [None] * len(forget)
    divided = [_ratio(*parts, relative_floor) for parts in zip(forget, retain, strict=True)]
    ratios = [ratio for ratio, _ in divided]
    separable = len(ratios) == 2
    rows, columns = ratios if separable else (ratios[0].sum(dim=1), ratios[0].sum(dim=0))
    floored_fraction = sum(count for _, count in divided) / sum(ratio.numel() for ratio in ratios)
    return ModuleRatio(rows, columns, floored_fraction, ratios[0] if elementwise and not separable else None)


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
    floor = relative_floor * retain.mean()
    if floor <= 0:  # The retain set does not touch this layer: there is nothing to divide by.
        return forget, retain.numel()
    return forget / (retain + floor), int((retain < floor).sum())
