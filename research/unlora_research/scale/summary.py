"""FILA against the rest, and how everything grows along every axis."""

import math
from collections.abc import Sequence

import numpy
import pandas

from unlora_research.scale.names import AXES, EXTRACTION, OTHERS
from unlora_research.tables import in_order, markdown_table, spread


def summary(table: pandas.DataFrame) -> str:
    """FILA against the rest over all points, then slopes along every axis."""
    parts = [
        _fila(table),
        _slopes(table, "extraction and training, seconds", "seconds"),
        _slopes(table.dropna(subset="disk_bytes"), "on disk, bytes", "disk_bytes"),
    ]
    return "\n\n".join(parts)


def _fila(table: pandas.DataFrame) -> str:
    seconds, disk = (
        table.pivot_table(index="cell", columns="method", values=values, sort=False)
        for values in ("seconds", "disk_bytes")
    )
    widest = table[table["axis"] == "width"].sort_values("value")["cell"].iloc[-1:]
    lines = []
    for other, name in (("fila_published", "FILA as released"), ("fila", "FILA in one pass")):
        for ours in ("vila", "marginal"):
            if other in seconds and ours in seconds:
                times, sizes = seconds[other] / seconds[ours], disk[other] / disk[ours]
                lines.append(
                    f"- {name} takes {spread(times, 1)} times the seconds of `{ours}` (mean over all points, smallest "
                    f"and largest; {spread(times.loc[widest], 1)} at the largest width) and {spread(sizes, 0)} times "
                    f"its bytes on disk ({spread(sizes.loc[widest], 0)} at the largest width)."
                )
    return "\n".join(lines)


def slope(values: Sequence[int | float], measured: Sequence[int | float]) -> float:
    """Of the straight line through the logarithms: 1 is proportional, 0 does not grow; NaN for a single point."""
    if len(values) < 2:
        return math.nan
    return float(numpy.polyfit(numpy.log(numpy.asarray(values, float)), numpy.log(numpy.asarray(measured)), 1)[0])


def _slopes(table: pandas.DataFrame, what: str, column: str) -> str:
    axes, names = in_order(table["axis"], AXES), EXTRACTION | OTHERS
    rows = []
    for method in in_order(table["method"], names):
        own = table[table["method"] == method].sort_values("value")
        along = [own[own["axis"] == axis] for axis in axes]
        found = [slope(list(one["value"]), list(one[column])) for one in along]
        over_plain = [spread(own["ratio"], 2)] if column == "seconds" else []
        # z: of a flat curve, rounding alone decides the sign of nought.
        rows.append([names[method], *("" if math.isnan(one) else f"{one:z.2f}" for one in found), *over_plain])
    headings = [f"{what}: slope along", *axes, *(["over a plain pass, all points"] if column == "seconds" else [])]
    return markdown_table(headings, rows)
