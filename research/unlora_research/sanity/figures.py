"""What goes with the rows that are put back, and whether the place is found."""

from collections.abc import Mapping, Sequence

import pandas
from matplotlib.figure import Figure

from unlora_research.figures import COLOURS, draw_lines, draw_ranges, new_figure
from unlora_research.sanity.curves import curves
from unlora_research.sanity.names import CONTROLS, EVERYWHERE, RANKINGS
from unlora_research.tables import in_order

SHOWN = ("change", "marginal", "fila", "forget_energy", "weight_norm", "random")
"""Rankings that are drawn, few enough to tell apart."""


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """What goes with the rows that are put back; whether the place is found."""
    drawn = {"rows_put_back": _rows_put_back(table)}
    if (table["place"] != EVERYWHERE).any():
        drawn["place"] = _place(curves(table))
    return drawn


def _rows_put_back(table: pandas.DataFrame) -> Figure:
    table = table.assign(forgotten=table["forgotten"].clip(0, 1))
    figure, panels = new_figure(
        "How much of the forget set goes with the rows that rank highest (band: smallest to largest cell)",
        width=11.5,
        height=4.6,
        columns=2,
        share_y=True,
    )
    shown = {name: RANKINGS[name] for name in SHOWN}
    where = table["place"] == EVERYWHERE
    groups = (("Learnt in all layers", table[where]), ("Learnt in one place", table[~where]))
    for axes, (title, group) in zip(panels, groups, strict=True):
        draw_lines(axes, group, "share", "forgotten", by="ranking", names=shown)
        axes.set(title=title, xlabel="share of all rows put back")
    panels[0].set(ylabel="forgotten (0: nothing, 1: as before it was learnt)")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _place(found: pandas.DataFrame) -> Figure:
    places = found[found["place"] != EVERYWHERE]
    known = list(dict.fromkeys(places["place"]))
    figure, panels = new_figure(
        "Does a module's score tell where the forget set was learnt?",
        width=3.2 * len(known) + 2.5,
        height=3.6,
        columns=len(known),
        share_y=True,
    )
    names = in_order(places["ranking"], RANKINGS)
    for axes, place in zip(panels, known, strict=True):
        here = places[places["place"] == place]
        groups: dict[str, Sequence[float]] = {name: list(here[here["ranking"] == name]["module_auc"]) for name in names}
        draw_ranges(axes, groups, colours={name: COLOURS[1] for name in CONTROLS})
        axes.axvline(0.5, color=COLOURS[7], linewidth=1, linestyle="--")
        axes.set(title=f"learnt in {place}", xlabel="AUC (0.5 is chance)", xlim=(-0.03, 1.03))
    return figure
