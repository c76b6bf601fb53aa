"""What a sweep found: a row a trial, the best of them, what each start did with its budget, and how it is told."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from unlora.recipes.sweep.proposals import pareto_front

Row = dict[str, Any]
HEADER = ("start", "trial", "settings", "distance", "kept", "balance", "held out: distance", "kept", "balance", "")


def trial_rows(found: Mapping[str, Sequence[FrozenTrial]]) -> list[Row]:
    """Turn the trials of every start into rows, and mark those on the Pareto front of all of them.

    A row: {"start", "trial", "parameters", "failed": reason or None, "validation", "held_out": fields of `PartResult`
    or None, "steps", "seconds", "on_front"}.
    """
    rows = [
        {
            "start": label,
            "trial": number,
            "parameters": trial.params,
            "failed": trial.user_attrs.get("failed"),
            "validation": trial.user_attrs.get("validation"),
            "held_out": trial.user_attrs.get("held_out"),
            "steps": trial.user_attrs.get("steps"),
            "seconds": trial.user_attrs.get("seconds"),
            "on_front": False,
        }
        for label, trials in found.items()
        for number, trial in enumerate(trials)
    ]
    done = finished(rows)
    for place in pareto_front([(row["validation"]["distance"], row["validation"]["kept"]) for row in done]):
        done[place]["on_front"] = True
    return rows


def finished(rows: Sequence[Row]) -> list[Row]:
    """Rows of trials that did not fail."""
    return [row for row in rows if row["failed"] is None]


def best_of(rows: Sequence[Row]) -> Row | None:
    """The row with the best balance on the validation part; of equal ones the first. None where all failed."""
    return max(finished(rows), key=lambda row: row["validation"]["balance"], default=None)


def budgets(rows: Sequence[Row]) -> list[Row]:
    """What each start had, and its best trial: {"start", "trials", "failed", "steps", "seconds", "best"}."""
    told = []
    for label in dict.fromkeys(row["start"] for row in rows):
        own = [row for row in rows if row["start"] == label]
        best = best_of(own)
        told.append(
            {
                "start": label,
                "trials": len(own),
                "failed": len(own) - len(finished(own)),
                "steps": sum(row["steps"] or 0 for row in own),
                "seconds": round(sum(row["seconds"] or 0.0 for row in own), 1),
                "best": best["trial"] if best is not None else None,
                **{name: best[name]["balance"] if best is not None else None for name in ("validation", "held_out")},
            }
        )
    return told


def warning(rows: Sequence[Row], best: Row) -> str:
    """Say what the best figure is worth."""
    chosen, held_out = best["validation"], best["held_out"]
    return (
        f"The best of {len(rows)} trials is optimistic: balance {chosen['balance']:.3f} on the questions it was chosen "
        f"by, {held_out['balance']:.3f} on the held-out ones (distance from the level {held_out['distance']:.3f}, kept "
        f"{held_out['kept']:.3f}). Quote the held-out figures."
    )


def page(rows: Sequence[Row], best: Row) -> str:
    """All of it in Markdown."""
    start_header = ("start", "trials", "failed", "steps", "seconds", "best trial", "balance", "held out")
    of_starts = [
        [*(str(one[key]) for key in ("start", "trials", "failed", "steps", "seconds", "best")), *_balances(one)]
        for one in budgets(rows)
    ]
    lines = [
        "# Sweep",
        f"Best: trial {best['trial']} of start {best['start']} ({_settings_text(best)}), in best.yaml.",
        warning(rows, best),
        "![Distance from the level and what is kept](pareto.png)",
        "## Starts, each with the same number of trials",
        markdown(start_header, of_starts),
        "## Trials",
        "Distance of the forget probability from the level (less is better), retain probability over the target's "
        "(more is better) and the balance of both, on the validation questions that choose and on the held-out ones.",
        markdown(HEADER, [cells(row) for row in rows]),
    ]
    return "\n\n".join(lines) + "\n"


def cells(row: Row) -> list[str]:
    """A row as texts, in the order of `HEADER`."""
    about = [row["start"], str(row["trial"]), _settings_text(row)]
    if row["failed"] is not None:
        return [*about, *["–"] * 6, f"failed: {row['failed']}"]
    numbers = [
        f"{row[part][key]:.3f}" for part in ("validation", "held_out") for key in ("distance", "kept", "balance")
    ]
    return [*about, *numbers, "on the front" if row["on_front"] else ""]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _settings_text(row: Row) -> str:
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in row["parameters"].items()
    )


def _balances(one: Row) -> list[str]:
    return ["–" if one[name] is None else f"{one[name]:.3f}" for name in ("validation", "held_out")]
