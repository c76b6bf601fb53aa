"""What goes with the rows that are put back, share by share, read as one line a ranking."""

from collections.abc import Sequence

import pandas

CELL = ["kind", "place", "seed"]
"""Columns that name a model."""
DAMAGE = 0.02
"""Rankings are compared where the held-out probability has fallen by this share."""
SHOWN_SHARE = 0.1
"""Share of rows put back that tables report."""


def curves(table: pandas.DataFrame) -> pandas.DataFrame:
    """One line a cell and ranking: where it found the change, and what its rows, put back, took with them."""
    keys = [*CELL, "ranking"]
    lines = []
    for key, group in table.groupby(keys, sort=False):
        group = group.sort_values("share")
        forgotten = group["forgotten"].clip(0, 1)
        shown = (group["share"] - SHOWN_SHARE).abs().argmin()
        lines.append(
            dict(zip(keys, key, strict=True))
            | {name: group[name].iloc[0] for name in ("module_auc", "row_auc", "row_correlation")}
            | {
                "forgotten": forgotten.iloc[shown],
                "kept": group["kept"].iloc[shown],
                "forgotten_at_damage": at_damage(list(group["share"]), list(group["kept"]), list(forgotten), DAMAGE),
            }
        )
    return pandas.DataFrame(lines)


def at_damage(shares: Sequence[float], kept: Sequence[float], values: Sequence[float], damage: float) -> float:
    """The value at the share of rows where `kept` first falls by `damage`, linear between shares from (0, 1, 0) on.

    Where it never does, the value at the largest share: so much at less damage.
    """
    before = (1.0, 0.0)
    for _, now, value in sorted(zip(shares, kept, values, strict=True)):
        if now < 1 - damage:
            way = (before[0] - (1 - damage)) / (before[0] - now)
            return before[1] + way * (value - before[1])
        before = (now, value)
    return before[1]
