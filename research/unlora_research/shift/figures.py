"""The study's figures: the mean against what was learnt, against what was replaced, and what unlearning makes of it."""

from collections.abc import Mapping

import pandas
from matplotlib.figure import Figure

from unlora_research.figures import COLOURS, MARKERS, draw_lines, new_figure
from unlora_research.shift.grid import KINDS, STATE
from unlora_research.shift.reading import OTHERS, measured_once, unlearnt
from unlora_research.tables import in_order

REPLACED = {kind: name for kind, name in KINDS.items() if kind != "none"}


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """Of the mean and the maps; of unlearning where there was any."""
    once, tried = measured_once(table), unlearnt(table)
    drawn = {"squared_mean": _squared_mean_figure(once), "maps": _maps_figure(once)}
    if len(tried):
        drawn["unlearning"] = _unlearning_figure(tried)
    return drawn


def _squared_mean_figure(once: pandas.DataFrame) -> Figure:
    figure, (axes,) = new_figure("The mean gradient against how far the forget set is from being learnt", height=4.6)
    for number, kind in enumerate(in_order(once["kind"], KINDS)):
        for learnt, words in STATE.items():
            some = once[(once["kind"] == kind) & (once["learnt"] == learnt)]
            if len(some):
                axes.scatter(
                    some["forget_loss"],
                    100 * some["squared_mean"],
                    marker=MARKERS[number],
                    facecolors=COLOURS[number] if learnt else "none",
                    edgecolors=COLOURS[number],
                    label=KINDS.get(kind, kind) + ("" if kind == "none" else f", {words}"),
                )
    chance = 100 / once["examples"].iloc[0]
    axes.axhline(chance, color=COLOURS[7], linestyle="--", linewidth=1, label="1/n: the plain average of a zero mean")
    axes.axhline(0, color=COLOURS[7], linewidth=1)
    axes.set(
        xlabel="loss of the forget set before unlearning (NLL per token)",
        ylabel="squared mean, unbiased (% of the second moment)",
        xscale="log",
    )
    axes.legend(frameon=False, fontsize=8)
    return figure


def _maps_figure(once: pandas.DataFrame) -> Figure:
    figure, panels = new_figure(
        "What replacing the forget set with text that was never seen does to the mean and to the map",
        width=10.5,
        columns=2,
    )
    shown = _never_seen(once).assign(percent=lambda rows: 100 * rows["squared_mean"])
    for axes, measure, label in zip(
        panels,
        ("percent", "rank_difference"),
        ("squared mean (% of the second moment)", "1 - rank correlation of both maps"),
        strict=True,
    ):
        draw_lines(axes, shown, "share", measure, by="kind", names=REPLACED)
        axes.set(xlabel="share of the forget set replaced", ylabel=label)
    if panels[0].get_lines():
        panels[0].legend(frameon=False, title="replaced by", fontsize=8)
    return figure


def _never_seen(once: pandas.DataFrame) -> pandas.DataFrame:
    """What was replaced by text never seen; the forget set as it is begins the line of every kind."""
    origin = once[once["kind"] == "none"]
    replaced = once[(once["kind"] != "none") & ~once["learnt"]]
    origins = [origin.assign(kind=kind) for kind in in_order(once["kind"], KINDS) if kind != "none"]
    return pandas.concat([replaced, *origins])


def _unlearning_figure(tried: pandas.DataFrame) -> Figure:
    figure, (axes,) = new_figure(
        "What the correction is worth: unlearning from variances against other starts, same forget set and target",
        width=8.0,
        height=4.4,
    )
    balances = tried.pivot_table(
        index=["kind", "learnt", "share", "seed", "squared_mean"], columns="start", values="balance"
    )
    others = [start for start in OTHERS if start in balances]
    for number, other in enumerate(others if "variance" in balances else []):
        difference = (balances["variance"] - balances[other]).dropna().reset_index(name="difference")
        axes.plot(
            100 * difference["squared_mean"],
            difference["difference"],
            MARKERS[number],
            color=COLOURS[number],
            label=f"variance minus {other.replace('_', ' ')}",
        )
    axes.axhline(0, color=COLOURS[7], linewidth=1)
    axes.set(
        xlabel="squared mean of the forget set, unbiased (% of the second moment)",
        ylabel="difference in balance (above 0: variance is better)",
    )
    axes.legend(frameon=False, fontsize=8)
    return figure
