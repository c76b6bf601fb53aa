"""Which rows of the table answer which question."""

import pandas

from unlora_research.shift.grid import KINDS, STARTS
from unlora_research.tables import in_order

OTHERS = [start for start in STARTS if start != "variance"]
"""What the variance is compared with."""


def measured_once(table: pandas.DataFrame) -> pandas.DataFrame:
    """One line a forget set and seed: what does not depend on the start."""
    return table.drop_duplicates(["kind", "share", "learnt", "seed"])


def unlearnt(table: pandas.DataFrame) -> pandas.DataFrame:
    """One line a start, of the forget sets that were unlearnt."""
    return table[table["start"].notna()] if "start" in table else table.iloc[:0]


def in_grid_order(table: pandas.DataFrame) -> list[tuple[str, bool, float, pandas.DataFrame]]:
    """Groups of one kind, state and share: nothing replaced first, then learnt, then never seen."""
    groups = []
    for kind in in_order(table["kind"], KINDS):
        for learnt in (True, False):
            some = table[(table["kind"] == kind) & (table["learnt"] == learnt)]
            shares = sorted(set(some["share"].tolist()))
            groups += [(kind, learnt, share, some[some["share"] == share]) for share in shares]
    return groups
