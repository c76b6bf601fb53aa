"""Maps against controls; the causal check; where the change was found; what was learnt."""

import pandas

from unlora_research.sanity.curves import CELL, DAMAGE, SHOWN_SHARE, curves
from unlora_research.sanity.names import CONTROLS, EVERYWHERE, KINDS, MAPS, RANKINGS
from unlora_research.tables import in_order, markdown_table, paired_differences, spread


def summary(table: pandas.DataFrame) -> str:
    """Four tables, the first only where there are maps and controls to compare."""
    found = curves(table)
    parts = [_findings(found), _causal(found), _located(found), _taught(table)]
    return "\n\n".join(part for part in parts if part)


def _findings(found: pandas.DataFrame) -> str:
    rows = []
    for name in MAPS:
        line = [f"`{name}`"]
        for measure in ("forgotten", "forgotten_at_damage"):
            for control in CONTROLS:
                differences = paired_differences(found, measure, name, control, by="ranking", within=CELL)
                wins = sum(value > 0 for value in differences)
                line.append(f"{spread(differences, 2)}, above 0 in {wins} of {len(differences)}" if differences else "")
        if any(line[1:]):
            rows.append(line)
    headings = ["rows by"]
    for words in (f"{SHOWN_SHARE:.0%} of the rows", f"{DAMAGE:.0%} damage"):
        headings += [f"{words}: forgotten, minus `{control}`" for control in CONTROLS]
    title = "**Does a map find more than a control does?** (differences within the same model)"
    return f"{title}\n\n{markdown_table(headings, rows)}" if rows else ""


def _causal(found: pandas.DataFrame) -> str:
    kinds = in_order(found["kind"], KINDS)
    everywhere = found["place"] == EVERYWHERE
    rows = []
    for where, group in (("all layers", found[everywhere]), ("one place", found[~everywhere])):
        for name in in_order(group["ranking"], RANKINGS):
            one = group[group["ranking"] == name]
            by_kind = [spread(one[one["kind"] == kind]["forgotten"], 2) for kind in kinds]
            kept = spread(100 * one["kept"], 1) + " %"
            rows.append([where, f"`{name}`", *by_kind, kept, spread(one["forgotten_at_damage"], 2)])
    headings = [
        "learnt in",
        "rows by",
        *(f"forgotten, {kind}" for kind in kinds),
        "kept, all kinds",
        f"forgotten at {DAMAGE:.0%} damage, all kinds",
    ]
    title = f"**The highest {SHOWN_SHARE:.0%} of all rows put back to their values before the forget set was learnt**"
    return f"{title}\n\n{markdown_table(headings, rows)}"


def _located(found: pandas.DataFrame) -> str:
    in_one_place = found[found["place"] != EVERYWHERE]
    places = list(dict.fromkeys(in_one_place["place"]))
    rows = []
    for name in in_order(found["ranking"], RANKINGS):
        one = in_one_place[in_one_place["ranking"] == name]
        by_place = [spread(one[one["place"] == place]["module_auc"], 2) for place in places]
        order = found[found["ranking"] == name]["row_correlation"]
        rows.append([f"`{name}`", *by_place, spread(one["row_auc"], 2), spread(order, 2)])
    headings = [
        "scores by",
        *(f"AUC of modules, learnt in `{place}`" for place in places),
        "AUC of rows, one place",
        "order of rows within modules (Spearman)",
    ]
    return f"**Does the score find what changed?** (0.5 and 0 are chance)\n\n{markdown_table(headings, rows)}"


def _taught(table: pandas.DataFrame) -> str:
    rows = []
    for (kind, place), group in table.groupby(["kind", "place"], sort=False):
        known = group.drop_duplicates("seed")
        names = ("before_forget", "target_forget", "before_held_out", "target_held_out")
        rows.append([kind, f"`{place}`", *(spread(known[f"{name}_probability"], 3) for name in names)])
    headings = ["forget set", "learnt in", "forget probability before", "learnt", "held-out before", "learnt"]
    return f"**What the model learnt**\n\n{markdown_table(headings, rows)}"
