"""From the courses of every attacker to the few that find nearly as much, and to what the gradients foretell."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from unlora.audit.agreement import mean_agreement
from unlora.audit.attacker_table import DEFAULT_ATTACKERS, LESSONS
from unlora.metrics.intervals import Interval, bootstrap_interval
from unlora_research.tables import markdown_table

ENOUGH = 0.9
"""Share of what the worst of all attackers finds."""

Records = Mapping[str, Mapping[str, Mapping[str, Any]]]
Found = dict[str, dict[str, float]]
"""Model -> attacker -> recovery beyond the control at the best step."""


class Screened(NamedTuple):
    """One unlearned model."""

    agreement: float
    """Mean cosine of its forget gradients minus the control's."""
    few: float
    """Recovery beyond the control at the worst attacker with a tenth of the forget set."""


def excess(model: Mapping[str, Any], control: Mapping[str, Any], attacker: str) -> float:
    """Recovery minus the control's at the step where it is largest; NaN where a course diverged."""
    courses = [record["courses"].get(attacker) for record in (model, control)]
    if None in courses:
        return float("nan")
    tested = courses[0]["tested"]
    own, others = (np.array(course["probability"])[:, tested].mean(axis=1) for course in courses)
    taken = np.array(model["target"])[tested].mean() - own[0]
    return float((((own - own[0]) - (others - others[0])) / taken)[1:].max())


def found_by_all(records: Records) -> Found:
    """What every attacker found in every model of every world."""
    return {
        f"{world}/{name}": {attacker: excess(model, models["control"], attacker) for attacker in model["courses"]}
        for world, models in records.items()
        for name, model in models.items()
        if name != "control" and "control" in models
    }


def share_found(found: Mapping[str, float], chosen: Sequence[str]) -> float:
    """What the worst of some attackers finds, over what the worst of all finds; 1 where all find nothing."""
    worst = max(0.0, np.nanmax(list(found.values())))
    some = max(0.0, np.nanmax([found[name] for name in chosen]))
    return float(some / worst) if worst > 0 else 1.0


def choose(found: Found, names: Sequence[str]) -> list[str]:
    """Add, one after the other, the attacker that raises the mean share most, until no model is below `ENOUGH`."""
    of_names = [{name: one[name] for name in names} for one in found.values()]
    chosen: list[str] = []
    while len(chosen) < len(names):
        left = [name for name in names if name not in chosen]
        of_each = {name: [share_found(one, [*chosen, name]) for one in of_names] for name in left}
        chosen.append(max(left, key=lambda name: (np.mean(np.minimum(of_each[name], ENOUGH)), np.mean(of_each[name]))))
        if min(share_found(one, chosen) for one in of_names) >= ENOUGH:
            break
    return chosen


def choice_rows(found: Found, default: Sequence[str]) -> list[list[str]]:
    """For each lesson: the fewest attackers, and what the shipped default finds of the worst of that lesson."""
    rows = []
    names = list(next(iter(found.values())))
    for lesson in LESSONS:
        of_lesson = [name for name in names if name.endswith(f"_{lesson}")]
        if not of_lesson:
            continue
        few = choose(found, of_lesson)
        shipped = [name for name in default if name in of_lesson]
        of_models = [{name: one[name] for name in of_lesson} for one in found.values()]
        shares = [share_found(one, shipped) for one in of_models] if shipped else []
        kept = f"{np.mean(shares):.0%} [{min(shares):.0%}, {max(shares):.0%}]" if shares else "not tried"
        worst = [max(one.values()) for one in of_models]
        rows.append(
            [
                LESSONS[lesson],
                f"{np.mean(worst):.0%} [{min(worst):.0%}, {max(worst):.0%}]",
                ", ".join(f"`{name}`" for name in few),
                kept,
            ]
        )
    worst_shares = [share_found(one, [name for name in default if name in names]) for one in found.values()]
    rows.append(
        ["all of them", "", "", f"{np.mean(worst_shares):.0%} [{min(worst_shares):.0%}, {max(worst_shares):.0%}]"]
    )
    return rows


def screened(records: Records) -> list[Screened]:
    """Agreement and recovery of every unlearned model."""
    rows = []
    for world, models in records.items():
        for name, model in models.items():
            if name == "control" or "control" not in models:
                continue
            cosines, control = (np.array(one["cosines"], dtype=float) for one in (model, models["control"]))
            few = [value for key, value in found_by_all({world: models})[f"{world}/{name}"].items() if "_few" in key]
            rows.append(Screened(mean_agreement(cosines, control).value, float(np.nanmax(few))))
    return rows


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Nought where either is the same throughout, as it is in a resample of one model."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def rank_correlation(rows: Sequence[Screened]) -> tuple[float, Interval]:
    """Spearman's between agreement and recovery over models, with its 95 % interval."""
    values = np.array(rows)

    def statistic(drawn: np.ndarray) -> np.ndarray:
        flat = drawn.reshape(-1, drawn.shape[-1])
        found = [_spearman(values[one, 0], values[one, 1]) for one in flat]
        return np.array(found).reshape(drawn.shape[:-1])

    interval = bootstrap_interval((np.arange(len(rows)),), statistic, confidence=0.95, seed=0, resamples=1000)
    return _spearman(values[:, 0], values[:, 1]), interval


def print_tables(records: Records) -> str:
    """What every attacker found, the choice, and the screen, in Markdown."""
    found = found_by_all(records)
    names = list(next(iter(found.values())))
    lines = []
    for name in names:
        values = [one[name] for one in found.values()]
        lesson = name.rpartition("_")[2]
        rivals = [{key: value for key, value in one.items() if key.endswith(f"_{lesson}")} for one in found.values()]
        best = sum(share_found(one, [name]) >= ENOUGH for one in rivals)
        lines.append([f"`{name}`", f"{np.nanmean(values):.0%}", f"{np.nanmax(values):.0%}", f"{best} of {len(found)}"])
    rows = screened(records)
    headings = [
        "learns from",
        "the worst finds",
        "fewest that find 90 % in every model",
        "the default finds of the worst",
    ]
    text = [
        markdown_table(
            ["attacker", "recovery beyond the control, mean", "largest", "alone finds 90 % of its lesson's worst"],
            lines,
        ),
        markdown_table(headings, choice_rows(found, DEFAULT_ATTACKERS)),
    ]
    if len(rows) >= 3:
        rank, interval = rank_correlation(rows)
        text.append(
            f"Agreement and recovery (few), {len(rows)} models: Spearman {rank:.2f} "
            f"[{interval.low:.2f}, {interval.high:.2f}]."
        )
    return "\n\n".join(text)
