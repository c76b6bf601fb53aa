"""What the study found: sentences; the mean and the maps; what unlearning makes of them."""

import pandas

from unlora_research.shift.grid import KINDS, STARTS, STATE
from unlora_research.shift.reading import OTHERS, in_grid_order, measured_once, unlearnt
from unlora_research.tables import in_order, markdown_table, paired_differences, spread

PLACE = ("replaced by", "which was", "share")


def summary(table: pandas.DataFrame) -> str:
    """Findings, then tables; of unlearning where there was any."""
    once, tried = measured_once(table), unlearnt(table)
    parts = ["\n".join(f"- {sentence}" for sentence in [*_map_findings(once), *_unlearning_findings(tried)])]
    parts.append(_maps_table(once))
    if len(tried):
        parts.append(_unlearning_table(tried))
    return "\n\n".join(parts)


def _map_findings(once: pandas.DataFrame) -> list[str]:
    sentences = []
    for learnt, words in ((True, "that the target was taught"), (False, "of nothing but text never seen")):
        group = once[once["learnt"] == learnt]
        group = group if learnt else group[group["share"] == 1]
        if len(group):
            of_zero = 100 / group["examples"].iloc[0]
            sentences.append(
                f"Forget sets {words}: loss {spread(group['forget_loss'], 2)}, squared mean "
                f"{_percent(group['squared_mean'])} of the second moment (unbiased), "
                f"{_percent(group['squared_mean_plug_in'])} in the plain average, "
                f"where a mean of zero gives {of_zero:.1f} %."
            )
    if len(once) > 2:
        related = once["forget_loss"].corr(once["squared_mean"], method="spearman")
        moved = once["squared_mean"].corr(once["rank_difference"], method="spearman")
        sentences.append(
            f"Over all {len(once)} forget sets: rank correlation of the loss with the squared mean {related:.2f}, of "
            f"the squared mean with the difference between the two maps {moved:.2f}."
        )
    better = list(once["variance_agreement"] - once["second_moment_agreement"])
    sentences.append(
        "Agreement of two halves of the examples on the rows' weights, from variances minus from second moments: "
        f"{_signed(better)} forget sets."
    )
    return sentences


def _unlearning_findings(tried: pandas.DataFrame) -> list[str]:
    sentences = []
    places = ["kind", "share", "seed"]
    for other in OTHERS:
        for learnt, words in STATE.items():
            of_state = tried[tried["learnt"] == learnt]
            if of_state.empty:
                continue
            differences = paired_differences(of_state, "balance", "variance", other, by="start", within=places)
            if differences:
                sentences.append(
                    f"Unlearning, replaced text {words}: balance from `variance` minus `{other}` "
                    f"{_signed(differences)}."
                )
    return sentences


def _signed(differences: list[float]) -> str:
    wins = sum(value > 0 for value in differences)
    return f"{spread(differences, 3)}, above 0 in {wins} of {len(differences)}"


def _percent(values: pandas.Series) -> str:
    return spread(100 * values, 1) + " %"


def _maps_table(once: pandas.DataFrame) -> str:
    lines = [
        [
            *_place(kind, learnt, share),
            spread(group["forget_loss"], 2),
            _percent(group["squared_mean"]),
            _percent(group["squared_mean_plug_in"]),
            spread(group["rank_difference"], 3),
            spread(group["variance_agreement"], 2),
            spread(group["second_moment_agreement"], 2),
        ]
        for kind, learnt, share, group in in_grid_order(once)
    ]
    headings = [
        *PLACE, "forget loss", "squared mean, unbiased", "plain average", "1 - Spearman of both maps",
        "agreement of halves, variance", "second moment",
    ]  # fmt: skip
    return f"**The mean and the maps**\n\n{markdown_table(headings, lines)}"


def _unlearning_table(tried: pandas.DataFrame) -> str:
    lines = []
    starts = in_order(tried["start"], tuple(STARTS))
    for kind, learnt, share, group in in_grid_order(tried):
        by_start = {start: group[group["start"] == start] for start in starts}
        first = by_start[starts[0]]
        balances = [spread(one["balance"], 3) for one in by_start.values()]
        at_first = [spread(first["forget_probability"], 3), _percent(first["kept"])]
        lines.append([*_place(kind, learnt, share), *balances, *at_first])
    headings = [*PLACE, *(f"balance, `{start}`" for start in starts)]
    headings += [f"forget probability, `{starts[0]}`", f"kept, `{starts[0]}`"]
    return f"**Unlearning** (1 is best)\n\n{markdown_table(headings, lines)}"


def _place(kind: str, learnt: bool, share: float) -> list[str]:
    return [KINDS.get(kind, kind), STATE[learnt], f"{share:.0%}"]
