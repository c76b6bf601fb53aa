"""How well a ranking finds what changed."""

from collections.abc import Mapping, Sequence
from statistics import median

from scipy.stats import mannwhitneyu
from torch import Tensor

from unlora.importance.diagnostics import rank_correlation
from unlora_research.engine import Row
from unlora_research.sanity.rankings import Ranking
from unlora_research.sanity.rows import row_changes


def located(ranking: Ranking, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Row:
    """Modules and rows that changed against those that did not (AUC), and, in the median module that changed, rows in
    the order of their true change (Spearman).
    """
    changes = row_changes(before, after)
    moved = [name for name, change in changes.items() if change.any()]
    still = [name for name in changes if name not in moved]
    return {
        "module_auc": auc([ranking.modules[name] for name in moved], [ranking.modules[name] for name in still]),
        "row_auc": auc(_joined(ranking.rows, moved), _joined(ranking.rows, still)),
        "row_correlation": median(rank_correlation(ranking.rows[name], changes[name]) for name in moved),
    }


def _joined(rows: Mapping[str, Tensor], names: Sequence[str]) -> list[float]:
    return [value for name in names for value in rows[name].tolist()]


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a positive scores above a negative, ties half; NaN without either."""
    if not positive or not negative:
        return float("nan")
    return float(mannwhitneyu(positive, negative).statistic) / (len(positive) * len(negative))
