"""Which start helps: every row with the same search, chosen on half of the questions, reported on the other half.

    python -m benchmarks.comparison small --output FOLDER [--rows plain contrast ...]
    python -m benchmarks.comparison tofu-mini --data FOLDER --output FOLDER [--rows ...]

`small` trains a four-layer model on fictitious people, another one for each seed; `tofu-mini` takes SmolLM2 and a
folder with target/, retain_only/, forget_perturbed.jsonl, retain.jsonl and held_out.jsonl (questions that the target
knows and no run trains on). Finished cells are found again in FOLDER, so several processes may share it, each with
rows of its own; called again with all rows, the command prints the table of what they left.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlora.artifacts import write_json
from unlora.recipes.reporter import SilentReporter
from unlora.studies.comparison import CellResult, GridPoint, Row, Setting, compare, references
from unlora.studies.halves import HalfResult
from unlora.studies.small_world import SmallWorld, build_small_world

STARTS = (
    "plain", "uniform", "shuffled", "marginal", "vila", "fila", "vila_published", "fila_published", "variance_full",
    "second_moment_lora", "reglu", "olora", "corda", "eva", "lora_ga", "contrast", "contrast_inputs",
)  # fmt: skip
GRIDS = {
    "small": ((2.5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), (1.6,)),
    "tofu-mini": ((2e-4, 5e-4, 2e-3), (1.6,)),
}


class Say(SilentReporter):
    """A line a cell."""

    def say(self, text: str) -> None:
        """Print at once, for whoever follows the log."""
        print(text, flush=True)


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scale", choices=list(GRIDS))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="tofu-mini only")
    parser.add_argument("--rows", nargs="+", default=list(STARTS), metavar="START", help=", ".join(STARTS))
    parser.add_argument("--losses", nargs="+", default=["ihl"], help="forget terms")
    parser.add_argument("--learning-rates", nargs="+", type=float)
    parser.add_argument("--retain-weights", nargs="+", type=float)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    rates, weights = GRIDS[options.scale]
    grid = [
        GridPoint(rate, weight)
        for rate in options.learning_rates or rates
        for weight in options.retain_weights or weights
    ]
    rows = [
        Row(f"{loss}-{start}", start, {"objective": {"forget": loss}})
        for loss in options.losses
        for start in options.rows
    ]
    setting = small(options.seeds) if options.scale == "small" else tofu_mini(options.seeds, options.data)
    chosen = compare(setting, rows, grid, options.output, search_seed=options.seeds[0], reporter=Say())
    table = {name: [cell._asdict() for cell in cells] for name, cells in chosen.items()}
    write_json(options.output / f"table-{'-'.join(options.losses)}-{options.rows[0]}.json", table)
    print(markdown(chosen, options.output, options.seeds))


def small(seeds: Sequence[int]) -> Setting:
    """A world a seed; ten epochs, because 36 questions make five steps each."""
    base = {}
    for seed in seeds:
        world = build_small_world(SmallWorld(seed=seed), reporter=Say())
        base[seed] = _settings(
            {"name": str(world.target)}, world.forget, world.retain, world.held_out, world.retain_only, epochs=10
        )
    return Setting(base)


def tofu_mini(seeds: Sequence[int], folder: Path) -> Setting:
    """One target for all seeds, which draw the data's order and the retain sample."""
    base = _settings(
        {"name": str(folder / "target"), "base": "embedded"},
        folder / "forget_perturbed.jsonl",
        folder / "retain.jsonl",
        folder / "held_out.jsonl",
        folder / "retain_only",
        epochs=5,
    )
    base["evaluation"]["retain_only_base"] = "embedded"
    return Setting(dict.fromkeys(seeds, base))


def _settings(
    model: dict[str, str], forget: Path, retain: Path, held_out: Path, retain_only: Path, *, epochs: int
) -> dict[str, Any]:
    return {
        "model": {**model, "device": "cpu", "dtype": "float32"},
        "data": {"forget": str(forget), "retain": str(retain), "template": "plain"},
        "training": {"epochs": epochs, "save_steps": 1000},
        "evaluation": {
            "forget": str(forget),
            "retain": str(held_out),
            "retain_only": str(retain_only),
            "max_new_tokens": 1,
        },
    }


def markdown(chosen: dict[str, list[CellResult]], folder: Path, seeds: Sequence[int]) -> str:
    """One line a row, best balance first: mean over seeds, smallest and largest in brackets."""
    lines = [
        "| loss and start | learning rate | forget probability | kept | forget quality, log10 p | extraction strength "
        "| balance |",
        "|---|---|---|---|---|---|---|",
    ]
    known = {seed: references(folder, seed) for seed in seeds}
    for name in ("target", "retain_only"):
        lines.append(_line(name, "", [known[seed][name] for seed in seeds], known, seeds, None))
    ranked = sorted(chosen.items(), key=lambda row: -sum(cell.test_balance for cell in row[1]))
    for name, cells in ranked:
        rate = f"{cells[0].point.learning_rate:g}"
        lines.append(_line(name, rate, [c.test for c in cells], known, seeds, [c.test_balance for c in cells]))
    return "\n".join(lines)


def _line(
    name: str,
    rate: str,
    results: Sequence[HalfResult],
    known: dict[int, dict[str, HalfResult]],
    seeds: Sequence[int],
    balances: Sequence[float] | None,
) -> str:
    kept = [
        100 * one.retain_probability / known[seed]["target"].retain_probability
        for one, seed in zip(results, seeds, strict=True)
    ]
    columns = [
        spread([one.forget_probability for one in results], 3),
        spread(kept, 1) + " %",
        spread([one.forget_quality_log10 for one in results], 2),
        spread([one.extraction_strength for one in results], 3),
        spread(balances, 3) if balances is not None else "",
    ]
    return f"| {name} | {rate} | " + " | ".join(columns) + " |"


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, with the smallest and the largest in brackets where there are several."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


if __name__ == "__main__":
    main()
