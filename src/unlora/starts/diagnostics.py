"""What an importance map is worth, in a few lines for the reader and a small record for the run."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from torch import Tensor

from unlora.importance import ImportanceMap
from unlora.importance.contrast_map import ContrastMap
from unlora.importance.diagnostics import MapDiagnostics, diagnose
from unlora.importance.importance_map import ImportanceMetadata
from unlora.starts.published_factors import published_rows

SHOWN_PLACES = 3
"""Blocks and projections named in a line, the highest first."""


def diagnose_as_measured(importance: ImportanceMap) -> MapDiagnostics:
    """Diagnose with the row weights that the adapter will start from."""
    if importance.metadata.published is None:
        return diagnose(importance)

    def row_weights(name: str) -> tuple[Tensor, float]:
        rows = published_rows(importance, name)
        return rows.scales.float().square(), rows.floored_fraction

    return diagnose(importance, row_weights)


def map_record(importance: ImportanceMap, found: MapDiagnostics) -> dict[str, Any]:
    """Return what record.json keeps of a map."""
    measured = importance.metadata
    return {
        "statistic": measured.statistic,
        "space": measured.space,
        "gradient_unit": measured.gradient_unit,
        "reduction": measured.reduction,
        "forget_examples": measured.forget.example_count,
        "retain_examples": measured.retain.example_count if measured.retain is not None else None,
        **found.summary.model_dump(mode="json"),
    }


def diagnostic_lines(metadata: ImportanceMetadata, found: MapDiagnostics) -> list[str]:
    """Put the summary in words, warnings last."""
    summary, forget, retain = found.summary, metadata.forget, metadata.retain
    counts = f"{forget.example_count} forget" + (
        f" and {retain.example_count} retain examples" if retain is not None else " examples, no retain set"
    )
    lines = [
        f"{metadata.statistic} of {metadata.space}: {summary.module_count} modules, {counts}",
        f"denominators ruled by the floor: {summary.floored_fraction:.1%}",
        f"row weights of the median module: Gini {_number(summary.gini)}, 95th percentile over 5th "
        f"{_number(summary.dynamic_range)}",
        "rows in the same order by two halves of the examples (Spearman, 1 = stable, 0 = chance): forget "
        f"{_number(summary.forget_stability)}, retain {_number(summary.retain_stability)}, ratio "
        f"{_number(summary.ratio_stability)}",
        "squared mean in the second moment, which the variance leaves out: forget "
        f"{_share(summary.forget_squared_mean)}, retain {_share(summary.retain_squared_mean)}",
    ]
    if summary.by_depth:
        lines.append(
            f"most forget over retain energy, whole map = 1: block {_highest(summary.by_depth)}; "
            + _highest(summary.by_projection)
        )
    return lines + [f"warning: {warning}" for warning in summary.warnings]


def _highest(places: Mapping[str, float]) -> str:
    ranked = sorted(places, key=lambda place: places[place], reverse=True)[:SHOWN_PLACES]
    return ", ".join(f"{place} {places[place]:.2f}" for place in ranked)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1%}"


def contrast_record(contrast: ContrastMap) -> dict[str, Any]:
    """Return what record.json keeps of directions."""
    measured = contrast.metadata
    return {
        "module_count": len(contrast),
        "forget_examples": measured.forget.example_count,
        "retain_examples": measured.retain.example_count if measured.retain is not None else None,
        "damping": measured.damping,
        **{f"median_leading_{side}_eigenvalue": value for side, value in median_leading_eigenvalues(contrast).items()},
    }


def contrast_line(contrast: ContrastMap) -> str:
    """Put in words how far the forget set stands out."""
    measured = contrast.metadata
    retain = f"{measured.retain.example_count} retain examples" if measured.retain is not None else "no retain examples"
    shares = [f"{value:.0f} ({side}s)" for side, value in median_leading_eigenvalues(contrast).items()]
    return (
        f"{len(contrast)} modules, {measured.forget.example_count} forget and {retain}; in the median "
        f"module's strongest direction the forget set's share is {' and '.join(shares)} "
        "times the retain set's, damped"
    )


def median_leading_eigenvalues(contrast: ContrastMap) -> dict[str, float]:
    """Median over modules of the first eigenvalue, of the side or sides that were measured."""
    sides = ("input",) if contrast.metadata.inputs_only else ("output", "input")
    return {side: median(float(getattr(one, f"{side}_eigenvalues")[0]) for one in contrast.values()) for side in sides}
