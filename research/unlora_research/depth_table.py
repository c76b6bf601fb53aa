"""From the courses of the attackers to the table and the picture of results/depth."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.ticker import NullFormatter, PercentFormatter

from unlora.artifacts import read_json
from unlora.errors import InputError
from unlora_research.attacker_choice import excess
from unlora_research.figures import COLOURS, MARKERS, new_figure, save_figure
from unlora_research.tables import markdown_table, spread

LESSONS = {"few": "few", "full": "all", "retain": "retain records"}
HEADINGS = ("recipe", "places", "forget probability", "level", "strength", "kept", "seconds")
GOALS = {"few": 0.05, "full": 0.12}
"""Recovery beyond the control that deep forgetting is to stay under."""
KEPT_GOAL = 0.97
FILLED: tuple[Literal["full", "none", "left", "top"], ...] = ("full", "none", "left", "top")
"""Signs of the first place and of those after it."""
LEAST_DRAWN = 0.01
"""Of recovery: less, and what is below zero, stands at it."""
Row = dict[str, float]


def read_rows(folder: Path, chosen_by: Sequence[str]) -> dict[str, list[Row]]:
    """Recipe -> a row for each place that has it and its control.

    Raises:
        InputError: nothing is there.
    """
    rows: dict[str, list[Row]] = {}
    for place, control in enumerate(sorted(folder.glob("*/control.json"))):
        beside = read_json(control)
        for file in sorted(control.parent.glob("*.json")):
            if file != control:
                row = row_of(read_json(file), beside, chosen_by)
                rows.setdefault(file.stem, []).append(row | {"place": place})
    if not rows:
        raise InputError(f"{folder}: holds no finished recipe of this study.")
    return rows


def row_of(model: Mapping[str, Any], control: Mapping[str, Any], chosen_by: Sequence[str]) -> Row:
    """What one recipe left in one place: level, what it kept, and the worst recovery of each lesson beyond the control.

    Recovery is (p after - p before) / (p target - p before) over what the attacker did not see, minus the same gain of
    the control at the same step, at the step where it is largest; "chosen FEW" is that of the attackers that chose the
    recipes, "FEW" of the others.
    """
    found = {name: excess(model, control, name) for name in model["courses"]}
    row = {
        "forget": float(np.mean(model["probability"])),
        "level": model["level"]["level"]["probability"],
        "low": model["level"]["level"]["low"],
        "high": model["level"]["level"]["high"],
        "strength": model["level"]["strength"],
        "kept": model["kept"] / model["knew"],
        "seconds": sum(model["seconds"].get(stage, 0.0) for stage in ("importance", "start", "training", "level")),
    }
    for lesson in LESSONS:
        for label, of_choice in (("chosen ", True), ("", False)):
            values = [
                value
                for name, value in found.items()
                if name.endswith(f"_{lesson}") and (name in chosen_by) == of_choice and not math.isnan(value)
            ]
            row[label + lesson] = max(values, default=math.nan)
    return row


def print_table(folder: Path, chosen_by: Sequence[str]) -> str:
    """The table in Markdown, mean with smallest and largest over places; and the picture beside the records."""
    rows = read_rows(folder, chosen_by)
    lessons = [
        label + lesson
        for lesson in LESSONS
        for label in ("chosen ", "")
        if any(not math.isnan(row[label + lesson]) for of_recipe in rows.values() for row in of_recipe)
    ]
    lines = []
    for name, of_recipe in sorted(rows.items(), key=lambda item: np.mean([row[lessons[0]] for row in item[1]])):
        within = sum(row["low"] <= row["forget"] <= row["high"] for row in of_recipe)
        lines.append(
            [
                f"`{name}`",
                f"{len(of_recipe)}",
                f"{spread([row['forget'] for row in of_recipe], 3)}",
                f"within in {within}",
                spread([row["strength"] for row in of_recipe], 2),
                spread([row["kept"] for row in of_recipe], 3),
                spread([row["seconds"] for row in of_recipe], 0),
                *(spread([row[lesson] for row in of_recipe], 2) for lesson in lessons),
            ]
        )
    draw(rows, folder / "frontier.png")
    return markdown_table([*HEADINGS, *lessons], lines)


def draw(rows: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Kept against recovery: a sign a recipe, filled by place; few attackers left, all right; dotted, the goals."""
    figure, both = new_figure("What is kept, and what relearning brings back", width=9.0, columns=2, share_y=True)
    for axes, (lesson, goal) in zip(both, GOALS.items(), strict=True):
        axes.set_xscale("log")
        axes.axvline(goal, linestyle=":", color="#555555", linewidth=1)
        axes.axhline(KEPT_GOAL, linestyle=":", color="#555555", linewidth=1)
        for number, (name, of_recipe) in enumerate(rows.items()):
            values = [row[lesson] if not math.isnan(row[lesson]) else row["chosen " + lesson] for row in of_recipe]
            values = [max(value, LEAST_DRAWN) for value in values]
            colour, marker = COLOURS[number % 8], MARKERS[number // 8 % 8]
            for value, row in zip(values, of_recipe, strict=True):
                filled = FILLED[int(row["place"]) % len(FILLED)]
                axes.plot(value, row["kept"], marker, color=colour, fillstyle=filled, markersize=6)
            axes.plot([], [], marker, color=colour, label=name, markersize=6)
        axes.set_xlabel(f"recovery beyond the control, {'a tenth' if lesson == 'few' else 'all'} taught again")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks([tick for tick in (0.01, 0.02, 0.05, 0.12, 0.3, 0.6) if tick >= axes.get_xlim()[0]])
    both[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    both[0].set_ylabel("retain probability kept")
    both[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)
