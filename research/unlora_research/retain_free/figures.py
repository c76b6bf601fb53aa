"""Balance by what importance was divided by, and with and without a retain set in training."""

from collections.abc import Iterable, Mapping, Sequence

import pandas
from matplotlib.figure import Figure

from unlora_research.figures import COLOURS, draw_ranges, new_figure
from unlora_research.retain_free.names import CONTROLS, METHODS, SOURCES, STARTS, TRAINING
from unlora_research.retain_free.summary import at_best_rates
from unlora_research.tables import in_order


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """Balance by source, a panel a method; and with and without a retain set in training."""
    chosen = at_best_rates(table)
    usual, without = (chosen[chosen["training"] == training] for training in TRAINING)
    methods = in_order(usual[~usual["start"].isin(CONTROLS)]["start"], METHODS)
    drawn: dict[str, Figure] = {}
    if methods:
        drawn["sources"] = _sources(usual, methods)
    if len(without):
        drawn["without"] = _without(usual, without)
    return drawn


def _sources(usual: pandas.DataFrame, methods: Sequence[str]) -> Figure:
    figure, panels = new_figure(
        "What the forget set's statistics are divided by (bar: smallest to largest seed; lines: starts without data)",
        width=2.4 * len(methods) + 2.4,
        height=3.0,
        columns=len(methods),
        share_y=True,
    )
    for axes, method in zip(panels, methods, strict=True):
        of_method = usual[usual["start"] == method]
        groups = {name: of_method[of_method["source"] == source]["test_balance"] for source, name in SOURCES.items()}
        draw_ranges(axes, groups, colours={SOURCES["retain"]: COLOURS[2]})
        for control, line in zip(CONTROLS, (":", "--"), strict=True):
            balances = usual[usual["start"] == control]["test_balance"]
            if len(balances):
                axes.axvline(balances.mean(), color=COLOURS[1], linestyle=line, label=control)
        axes.set(title=method, xlabel="balance (1 is best)", xlim=_around(usual["test_balance"]))
        axes.tick_params(labelleft=axes is panels[0])
    if panels[-1].get_legend_handles_labels()[1]:
        figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _around(values: Iterable[float]) -> tuple[float, float]:
    """The range of all panels, with a margin."""
    found = list(values)
    margin = 0.05 * (max(found) - min(found)) + 0.005
    return min(found) - margin, max(found) + margin


def _without(usual: pandas.DataFrame, without: pandas.DataFrame) -> Figure:
    figure, (axes,) = new_figure(
        "With the retain set (blue) and with the model's own samples in its place everywhere (orange)", height=3.0
    )
    starts = in_order(without["start"], STARTS)
    for rows, source, colour in ((usual, "retain", COLOURS[0]), (without, "own_samples", COLOURS[1])):
        rows = rows[rows["source"].isin([source, "control"])]
        groups = {start: rows[rows["start"] == start]["test_balance"] for start in starts}
        draw_ranges(axes, groups, colours=dict.fromkeys(starts, colour))
    axes.set(xlabel="balance of forgetting and keeping (1 is best)")
    return figure
