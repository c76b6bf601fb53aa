"""The study's figures: rank and distribution, sigma, depth, coverage."""

from collections.abc import Callable, Mapping

import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from unlora_research.assumptions.factors import DISTRIBUTIONS
from unlora_research.assumptions.grid import COVERAGES, RANK
from unlora_research.assumptions.questions import LIMIT
from unlora_research.assumptions.reading import by_layer, by_sigma, noise, of_target, sampled_and_limit, unlearnt
from unlora_research.figures import COLOURS, draw_lines, draw_ranges, new_figure
from unlora_research.tables import in_order


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """Those there are rows for."""
    parts: dict[str, tuple[pandas.DataFrame, Callable[[pandas.DataFrame], Figure]]] = {
        "rank": (of_target(table), _rank_figure),
        "sigma": (by_sigma(table), _sigma_figure),
        "depth": (by_layer(table), _depth_figure),
        "coverage": (unlearnt(table), _coverage_figure),
    }
    return {name: draw(rows) for name, (rows, draw) in parts.items() if len(rows)}


def _rank_figure(found: pandas.DataFrame) -> Figure:
    figure, (left, right) = new_figure(
        "Sampling of the factors averages out with rank; what a product cannot say stays",
        width=11.0,
        height=5.2,
        columns=2,
    )
    ranks = sorted(found["rank"].dropna().unique())
    found = found.assign(noise=noise(found))
    for axes, measure, label in (
        (left, "frobenius", "relative error against the exact variance"),
        (right, "noise", "sampling noise relative to the limit"),
    ):
        draw_lines(axes, found, "rank", measure, by="distribution", names=DISTRIBUTIONS)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ranks, [f"{rank:g}" for rank in ranks])
        axes.set(xlabel="rank of the factors", ylabel=label)
    limit = found[found["distribution"] == LIMIT]["frobenius"].mean()
    left.axhline(limit, color="black", linestyle="--", label="infinite rank (product of exact marginals)")
    end = found[(found["distribution"] == "gaussian") & (found["rank"] == ranks[-1])]["noise"].mean()
    guide = [end * (ranks[-1] / rank) ** 0.5 for rank in ranks]
    right.plot(ranks, guide, ":", color="black", label="1 / root of rank")
    right.set_yscale("log")
    right.yaxis.set_major_formatter(ScalarFormatter())
    right.yaxis.set_minor_formatter(ScalarFormatter())
    shown = [pair for axes in (left, right) for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    labelled = {label: handle for handle, label in shown}
    figure.legend(
        list(labelled.values()), list(labelled), loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    return figure


def _sigma_figure(found: pandas.DataFrame) -> Figure:
    figure, (axes,) = new_figure("The size of the factors matters only where they stand in the network")
    draw_lines(axes, found, "sigma", "rows", by="factors", names=("virtual", "inserted"))
    axes.set(xlabel="sigma of the factors", ylabel="rank correlation of row sums")
    axes.legend(frameon=False)
    return figure


def _depth_figure(found: pandas.DataFrame) -> Figure:
    figure, panels = new_figure(
        f"Error of the product form by layer (dot: mean, bar: seeds; blue: rank {RANK}, orange: infinite rank)",
        width=10.0,
        height=1.6 + 0.3 * found["kind"].nunique(),
        columns=2,
    )
    for axes, column in zip(panels, ("block", "kind"), strict=True):
        names = list(dict.fromkeys(found[column]))
        for (_, rows), colour in zip(sampled_and_limit(found), COLOURS[:2], strict=True):
            medians = {name: rows[rows[column] == name].groupby("seed")["frobenius"].median() for name in names}
            draw_ranges(axes, medians, colours=dict.fromkeys(names, colour))
        axes.set(xlabel="relative error of the entries, median over layers")
    return figure


def _coverage_figure(runs: pandas.DataFrame) -> Figure:
    figure, (axes,) = new_figure(
        "Unlearning with an adapter in all layers and in a quarter (bar: smallest to largest seed)", height=2.4
    )
    chosen = in_order(runs["layers"], COVERAGES)
    draw_ranges(axes, {COVERAGES[layers]: runs[runs["layers"] == layers]["test_balance"] for layers in chosen})
    axes.set(xlabel="balance of forgetting and keeping (1 is best)")
    return figure
