"""Extraction over a plain training pass."""

from collections.abc import Mapping

import pandas
from matplotlib.figure import Figure

from unlora_research.figures import draw_lines, new_figure
from unlora_research.scale.names import AXES, EXTRACTION
from unlora_research.tables import in_order


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """Extraction over the plain pass, a panel an axis."""
    axes_there = in_order(table["axis"], AXES)
    figure, panels = new_figure(
        "Seconds of extraction over one plain LoRA pass on the same tokens",
        width=3.0 * len(axes_there) + 1.0,
        height=4.0,
        columns=len(axes_there),
        share_y=True,
    )
    for axes, axis in zip(panels, axes_there, strict=True):
        draw_lines(axes, table[table["axis"] == axis], "value", "ratio", by="method", names=EXTRACTION)
        axes.set(xscale="log", yscale="log", xlabel=axis)
        values = sorted(set(table[table["axis"] == axis]["value"]))
        axes.set_xticks(values, [str(value) for value in values])
        axes.minorticks_off()
    panels[0].set_ylabel("times a plain pass")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return {"scale": figure}
