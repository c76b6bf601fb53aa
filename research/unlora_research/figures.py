"""One look for every figure: axes named, spread shown, colours that colour-blind readers can tell apart."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unlora.artifacts import atomic_path

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito's palette, strongest contrast first."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""A second sign beside the colour."""
LINES = ("-", "--", "-.", ":")


def new_figure(
    title: str, *, width: float = 7.0, height: float = 4.2, columns: int = 1, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """An empty figure without a window, with its message as title, and its axes from left to right."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    axes = [figure.add_subplot(1, columns, 1)]
    axes += [figure.add_subplot(1, columns, at, sharey=axes[0] if share_y else None) for at in range(2, columns + 1)]
    for one in axes:
        one.grid(True, color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_lines(
    axes: Axes, table: pandas.DataFrame, x: str, y: str, *, by: str, names: Sequence[str] | Mapping[str, str]
) -> None:
    """A line a group: the mean over rows with one `x`, and the range from the smallest to the largest.

    Args:
        axes: where.
        table: rows; missing `y` are left out.
        x: column of the horizontal axis.
        y: column of the vertical axis.
        by: column of the groups.
        names: groups in the order of the legend; a mapping gives their labels.
    """
    for number, name in enumerate(names):
        group = table[(table[by] == name) & table[y].notna()].groupby(x)[y]
        if not len(group):
            continue
        mean, low, high = group.mean(), group.min(), group.max()
        label = names[name] if isinstance(names, Mapping) else str(name)
        colour, line = COLOURS[number % 8], f"{MARKERS[number % 8]}{LINES[number // 8 % 4]}"
        axes.plot(mean.index, mean, line, label=label, linewidth=1.6, markersize=5, color=colour)
        axes.fill_between(mean.index, low, high, color=colour, alpha=0.15, linewidth=0)


def draw_ranges(axes: Axes, groups: Mapping[str, Iterable[float]], *, colours: Mapping[str, str] | None = None) -> None:
    """A line a group from top to bottom: a dot at the mean, a bar from the smallest to the largest value."""
    for place, (name, values) in enumerate(reversed(list(groups.items()))):
        found = [value for value in values if value == value]
        if not found:
            continue
        colour = (colours or {}).get(name, COLOURS[0])
        axes.plot([min(found), max(found)], [place, place], color=colour, linewidth=2, alpha=0.6)
        axes.plot(sum(found) / len(found), place, "o", color=colour, markersize=6)
    axes.set_yticks(range(len(groups)), list(groups)[::-1])


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG; the same figure gives the same file."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
