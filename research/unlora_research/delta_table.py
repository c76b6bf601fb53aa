"""From the stops of the dial to the table of results/depth."""

import math
from pathlib import Path

import numpy as np

from unlora.artifacts import read_json
from unlora.errors import InputError
from unlora_research.attacker_choice import excess
from unlora_research.tables import markdown_table, spread

HEADINGS = ("stop", "k", "l", "a", "steps", "places", "forget probability", "kept")
LESSONS = {"few": "back: a tenth", "full": "back: all", "retain": "back: retain records"}
LEAST = 0.2
"""Of probability that was lost: of less, what comes back is a share that says little."""

Row = dict[str, float]


def read_rows(folder: Path) -> dict[str, list[Row]]:
    """Stop -> a row for each place that has it; the control's is "control".

    Raises:
        InputError: nothing is there.
    """
    rows: dict[str, list[Row]] = {}
    for control in sorted(folder.glob("*/control.json")):
        beside = read_json(control)
        rows.setdefault("control", []).append({"forget": float(np.mean(beside["probability"])), "kept": beside["kept"]})
        for file in sorted(control.parent.glob("*.json")):
            if file == control:
                continue
            model = read_json(file)
            row: Row = {**model["dial"], "seconds": model["seconds"], "kept": model["kept"]}
            row["forget"] = float(np.mean(model["probability"]))
            forgotten = float(np.mean(model["target"])) - row["forget"] >= LEAST
            for lesson in LESSONS:
                names = [name for name in model["courses"] if name.endswith(f"_{lesson}") and forgotten]
                found = [excess(model, beside, name) for name in names]
                row[lesson] = max((one for one in found if not math.isnan(one)), default=math.nan)
            rows.setdefault(file.stem, []).append(row)
    if not rows:
        raise InputError(f"{folder}: holds no finished stop of this study.")
    return rows


def print_table(folder: Path) -> str:
    """In Markdown, from light to retrained, mean with smallest and largest over places.

    Recovery is (p after - p before) / (p target - p before) over what the attacker did not see, minus the same gain of
    the control, at the worst attacker of a lesson and the step where it is largest.
    """
    rows = read_rows(folder)
    tried = [
        one for one in LESSONS if any(not math.isnan(row.get(one, math.nan)) for of in rows.values() for row in of)
    ]
    lines = []
    for name, of_stop in sorted(rows.items(), key=lambda item: -np.mean([row["forget"] for row in item[1]])):
        first, control = of_stop[0], name == "control"
        dial = [""] * 4 if control else [f"{first[part]:g}" for part in ("k", "l", "a", "steps")]
        means = [spread([row["forget"] for row in of_stop], 3), spread([row["kept"] for row in of_stop], 3)]
        back = ["" if control else spread([row[lesson] for row in of_stop], 2) for lesson in tried]
        seconds = "" if control else spread([row["seconds"] for row in of_stop], 0)
        lines.append([f"`{name}`", *dial, f"{len(of_stop)}", *means, *back, seconds])
    return markdown_table([*HEADINGS, *(LESSONS[one] for one in tried), "seconds"], lines)
