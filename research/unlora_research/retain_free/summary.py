"""What each source loses against the retain set, and a table for each comparison."""

import pandas

from unlora_research.retain_free.names import METHODS, SOURCES, STARTS, TRAINING
from unlora_research.tables import in_order, markdown_table, paired_differences, spread
from unlora_research.unlearning import best_rates


def summary(table: pandas.DataFrame) -> str:
    """What each source loses, then importance without the retain set, then training without it too."""
    chosen = at_best_rates(table)
    usual, without = (chosen[chosen["training"] == training] for training in TRAINING)
    parts = [
        _losses(usual),
        _table("Importance without the retain set (training has it)", usual),
        _table("No retain set at all (importance and training from the model's own samples)", without),
    ]
    return "\n\n".join(part for part in parts if part)


def at_best_rates(table: pandas.DataFrame) -> pandas.DataFrame:
    """The best rate of each start, source and training; a control's source is named."""
    return best_rates(table.assign(source=table["source"].fillna("control")), ["start", "source", "training"])


def lost(chosen: pandas.DataFrame, start: str, source: str) -> list[float]:
    """Balance with the retain set minus balance with another source, for each seed that has both."""
    of_start = chosen[chosen["start"] == start]
    return paired_differences(of_start, "test_balance", "retain", source, by="source", within="seed")


def _losses(usual: pandas.DataFrame) -> str:
    lines = []
    for start in in_order(usual["start"], METHODS):
        found = {name: lost(usual, start, source) for source, name in SOURCES.items() if source != "retain"}
        told = [f"{name} {spread(values, 3)}" for name, values in found.items() if values]
        if told:
            lines.append(f"- `{start}`: balance lost against the true retain set: {'; '.join(told)}.")
    return "\n".join(lines)


def _table(title: str, chosen: pandas.DataFrame) -> str:
    if chosen.empty:
        return ""
    rows = []
    for start in in_order(chosen["start"], STARTS):
        of_start = chosen[chosen["start"] == start]
        for source in in_order(of_start["source"], SOURCES):
            group = of_start[of_start["source"] == source]
            rows.append(
                [
                    f"`{start}`",
                    SOURCES.get(source, "no data"),
                    spread(group["agreement"], 2) if source in SOURCES else "",
                    f"{group['learning_rate'].iloc[0]:g}",
                    spread(group["test_forget_probability"], 3),
                    spread(100 * group["test_kept"], 1) + " %",
                    spread(group["test_forget_quality_log10"], 2),
                    spread(group["test_balance"], 3),
                ]
            )
    headings = [
        "start", "divided by", "agreement with the retain set's map", "learning rate", "forget probability", "kept",
        "forget quality, log10 p", "balance",
    ]  # fmt: skip
    return f"**{title}**\n\n{markdown_table(headings, rows)}"
