"""How much more a parameter matters to the forget set than to the retain set: M = I_forget / (I_retain + floor)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from unlora.importance.importance_map import (
    FactoredImportance,
    FullImportance,
    ImportanceMap,
    MarginalImportance,
    ModuleImportance,
    SetImportance,
)

RELATIVE_FLOOR = 0.01
"""The floor is this share of the mean retain importance of the same layer (of its rows, its columns or its entries)."""


@dataclass(frozen=True)
class ModuleRatio:
    """The ratio of one module, as weights of rows and columns of its weight matrix."""

    row_weights: Float[Tensor, " d_out"]
    column_weights: Float[Tensor, " d_in"]
    floored_fraction: float
    """Share of the denominators in which the floor exceeds the retain importance."""


def module_ratio(importance: ModuleImportance, relative_floor: float = RELATIVE_FLOOR) -> ModuleRatio:
    """Ratio of one module.

    Marginals give a separable ratio: rows over rows times columns over columns. In the other spaces M is formed for
    this module alone and its row and column sums are returned (what FILA and VILA weight rows with). Without a retain
    set the denominator is one.
    """
    forget, retain = importance.forget, importance.retain
    if isinstance(forget, MarginalImportance):
        assert_retain = retain if isinstance(retain, MarginalImportance) else None
        rows, floored_rows = _ratio(forget.rows, assert_retain.rows if assert_retain else None, relative_floor)
        columns, floored_columns = _ratio(
            forget.columns, assert_retain.columns if assert_retain else None, relative_floor
        )
        floored = (floored_rows + floored_columns) / (rows.numel() + columns.numel())
        return ModuleRatio(rows, columns, floored)
    ratio, floored_count = _ratio(_dense(forget), _dense(retain) if retain is not None else None, relative_floor)
    return ModuleRatio(ratio.sum(dim=1), ratio.sum(dim=0), floored_count / ratio.numel())


def module_score(importance: ModuleImportance) -> float:
    """Total forget importance of a module over its total retain importance: how much the forget set lives there."""
    total = _total(importance.forget)
    return total / _total(importance.retain) if importance.retain is not None else total


def most_important_modules(importance: ImportanceMap, coverage: float) -> list[str]:
    """Names of the share `coverage` of modules with the highest score, in model order (arXiv 2508.21300, Table 10)."""
    count = max(1, round(coverage * len(importance)))
    ranked = sorted(importance, key=lambda name: module_score(importance[name]), reverse=True)
    chosen = set(ranked[:count])
    return [name for name in importance if name in chosen]


def _ratio(forget: Tensor, retain: Tensor | None, relative_floor: float) -> tuple[Tensor, int]:
    if retain is None:
        return forget, 0
    floor = relative_floor * retain.mean()
    if floor <= 0:  # The retain set does not touch this layer: there is nothing to divide by.
        return forget, retain.numel()
    return forget / (retain + floor), int((retain < floor).sum())


def _dense(importance: SetImportance) -> Tensor:
    if isinstance(importance, FullImportance):
        return importance.values
    if isinstance(importance, FactoredImportance):
        return importance.lora_b @ importance.lora_a
    return importance.rows[:, None] * importance.columns[None, :]


def _total(importance: SetImportance) -> float:
    if isinstance(importance, MarginalImportance):
        return float(importance.rows.sum())
    if isinstance(importance, FactoredImportance):
        return float(importance.lora_b.sum(dim=0) @ importance.lora_a.sum(dim=1))
    return float(importance.values.sum())
