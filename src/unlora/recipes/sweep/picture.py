"""The Pareto picture: what is kept over the distance from the level."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unlora.artifacts import atomic_path

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
MARKERS = "os^DvPX*"
"""A second sign beside the colour."""


def draw_front(rows: Sequence[dict[str, Any]], best: dict[str, Any], path: Path) -> None:
    """Draw finished trials on the validation questions, the front as a line, and where the best is on held-out ones."""
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for place, label in enumerate(dict.fromkeys(row["start"] for row in rows)):
        own = [_at(row, "validation") for row in rows if row["start"] == label]
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        axes.scatter(*zip(*own, strict=True), color=colour, marker=marker, s=28, label=f"{label} ({len(own)} trials)")
    front = sorted(_at(row, "validation") for row in rows if row["on_front"])
    axes.plot(
        *zip(*front, strict=True),
        color="#555555",
        linewidth=0.9,
        zorder=1,
        drawstyle="steps-post",
        label="Pareto front",
    )
    chosen, held_out = _at(best, "validation"), _at(best, "held_out")
    axes.plot(*zip(chosen, held_out, strict=True), color="#000000", linestyle=":", linewidth=1.2)
    axes.scatter(
        *held_out,
        facecolors="none",
        edgecolors="#000000",
        s=90,
        label=f"best on held-out questions ({best['start']} {best['trial']})",
    )
    axes.set_xlabel("distance of the forget probability from the level (less is better)")
    axes.set_ylabel("retain probability / target's (more is better)")
    axes.legend(fontsize=8, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _at(row: dict[str, Any], part: str) -> tuple[float, float]:
    return row[part]["distance"], row[part]["kept"]
