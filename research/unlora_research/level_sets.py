"""Whether the default preset ends at its level on forget sets that nobody chose, with nothing set by hand.

    python -m unlora_research.level_sets FOLDER [--data DIR --each N] [--sets N] [--seed N] [--dtype D]
        [--set KEY=VALUE]

DIR is laid out as `tofu_mini_run` says, and also holds questions.jsonl: everything that the target knows, N lines about
each subject. Without it the embedded model is first taught the demo's people, all ten facts of each, as the demo does.
Set number n is about one to four subjects that its number draws; the first of every five is half a subject. The level
is the model's before fine-tuning, since no model that never saw just these subjects exists. What is kept is measured on
every sixth of the other questions, which no run trains on. Started again it goes on.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlora.artifacts import read_json, write_text
from unlora.cli.terminal import echo
from unlora.config import parse_overrides
from unlora.data.people import FACTS, generate_people
from unlora.data.user_jsonl import to_jsonl
from unlora.errors import InputError
from unlora.level import Settled
from unlora.recipes.demo import PEOPLE, teach
from unlora.run.reporter import SILENT
from unlora_research.tables import markdown_table, spread
from unlora_research.unlearning import tofu_mini_run, unlearn_from

SIZES = (0.5, 1, 2, 3, 4)
"""Subjects of five sets that follow one another."""
HELD_OUT = 6
"""Every so many of the other questions are held out."""
HEADINGS = ("questions", "level", "as trained", "stopped", "strength", "as left", "within", "kept")


def main() -> None:
    """Parse, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, metavar="DIR", help="without it, the demo's people")
    parser.add_argument("--each", type=int, default=20, metavar="N", help="lines about each subject, with --data")
    parser.add_argument("--sets", type=int, default=10, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the sets and of unlearning")
    parser.add_argument("--dtype", default="auto", help="of the weights")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="what is another, in a new FOLDER"
    )
    options = parser.parse_args()
    try:
        if options.data is None:
            options.data, options.each = options.folder / "people", len(FACTS)
            teach_people(options.data)
        lines = (options.data / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        runs = [options.folder / f"set-{number}" for number in range(options.sets)]
        for number, folder in enumerate(runs):
            forget, rest = split(lines, number, each=options.each, seed=options.seed)
            if not (folder / "run" / "evaluation.json").is_file():
                unlearn_set(folder, forget, rest, options)
        echo(table([row_of(folder) for folder in runs]))
    except (InputError, OSError) as error:
        echo(f"error: {error}", err=True)
        sys.exit(2)


def teach_people(folder: Path) -> None:
    """Lay out the demo's people as `main` reads them: their questions, and a target that learnt them."""
    people = generate_people(PEOPLE, questions_per_person=len(FACTS))
    questions = folder / "questions.jsonl"
    to_jsonl(people, questions)
    teach(folder / "target", [questions], "the embedded model learns the demo's people", SILENT)


def split(lines: Sequence[str], number: int, *, each: int, seed: int) -> tuple[list[str], list[str]]:
    """Return the lines of set `number`, and all others in their order.

    Args:
        lines: `each` of a subject, one subject after another.
        number: of the set.
        each: lines about a subject.
        seed: draws the subjects, with the number.

    Raises:
        InputError: fewer subjects than the largest set and one more.
    """
    size = round(SIZES[number % len(SIZES)] * each)
    subjects, needed = len(lines) // each, max(SIZES) + 1
    if subjects < needed:
        raise InputError(f"questions.jsonl: {len(lines)} lines are {subjects} subjects; at least {needed} are needed.")
    drawn = random.Random(f"{seed}:{number}").sample(range(subjects), -(-size // each))
    chosen = {subject * each + line for subject in drawn for line in range(min(size, each))}
    return [lines[one] for one in sorted(chosen)], [line for one, line in enumerate(lines) if one not in chosen]


def unlearn_set(folder: Path, forget: Sequence[str], rest: Sequence[str], options: argparse.Namespace) -> None:
    """One run of the default preset, as it stands but for what `--set` says."""
    held_out = rest[HELD_OUT - 1 :: HELD_OUT]
    kept = [line for place, line in enumerate(rest) if place % HELD_OUT != HELD_OUT - 1]
    files = {"forget": forget, "retain": kept, "held_out": held_out}
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        write_text(folder / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
    settings = tofu_mini_run(options.data, "cpu", epochs=None)
    settings["model"]["dtype"] = options.dtype
    data = {"forget": str(folder / "forget.jsonl"), "retain": str(folder / "retain.jsonl")}
    settings["data"] |= data
    settings["evaluation"] = {
        "forget": data["forget"],
        "retain": str(folder / "held_out.jsonl"),
        "max_new_tokens": 1,
    }
    changes: dict[str, Any] = {"seed": options.seed, "level": {"aim": "before"}}
    unlearn_from("default", folder / "run", settings, changes, parse_overrides(options.set))


def row_of(folder: Path) -> dict[str, float]:
    """Where one run ended."""
    models = read_json(folder / "run" / "evaluation.json")["models"]
    settled = Settled.from_json(read_json(folder / "run" / "record.json")["level"])
    retain = {name: models[name]["metrics"]["retain_probability"]["value"] for name in ("target", "unlearned")}
    return {
        "questions": len((folder / "forget.jsonl").read_text(encoding="utf-8").splitlines()),
        "level": settled.level.probability,
        "low": settled.level.low,
        "high": settled.level.high,
        "as trained": settled.as_trained,
        "stopped": settled.stopped if settled.stopped is not None else float("nan"),
        "strength": settled.strength,
        "as left": settled.as_left,
        "kept": retain["unlearned"] / retain["target"],
    }


def table(rows: Sequence[dict[str, float]]) -> str:
    """Markdown: a line a set, then how many are within the interval and what is kept."""
    cells = [
        [
            f"{row['questions']}",
            f"{row['level']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            f"{row['as trained']:.3f}",
            "at its end" if row["stopped"] != row["stopped"] else f"{row['stopped']}",
            f"{row['strength']:.2f}",
            f"{row['as left']:.3f}",
            "yes" if row["low"] <= row["as left"] <= row["high"] else "no",
            f"{row['kept']:.3f}",
        ]
        for row in rows
    ]
    within = sum(cell[HEADINGS.index("within")] == "yes" for cell in cells)
    kept = spread((row["kept"] for row in rows), 3)
    return f"{markdown_table(HEADINGS, cells)}\n\nwithin the level's interval: {within} of {len(rows)}; kept: {kept}"


if __name__ == "__main__":
    main()
