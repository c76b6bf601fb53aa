"""Which start helps: every row with the same search, chosen on half of the questions, reported on the other half.

    python -m benchmarks.comparison small --output FOLDER [--rows plain contrast ...]
    python -m benchmarks.comparison tofu-mini --data FOLDER --output FOLDER [--rows ...]
    ... [--losses ihl npo] [--relearning] [--utility FOLDER] [--json FILE]

`small` trains a four-layer model on fictitious people, another one for each seed; `tofu-mini` takes SmolLM2 and a
folder with target/, retain_only/, forget_perturbed.jsonl, retain.jsonl and held_out.jsonl (questions that the target
knows and no run trains on). Finished cells are found again in FOLDER, so several processes may share it, each with
rows of its own; called again with all rows, the command prints the table of what they left. --relearning attacks every
chosen run, and --utility measures TOFU's model utility of those of seed 0, with FOLDER's held_out_perturbed.jsonl,
real_authors_perturbed.json and world_facts_perturbed.json; neither plays a part in the choice.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from unlora.artifacts import write_json
from unlora.data.sources import load_examples
from unlora.recipes.reporter import SilentReporter
from unlora.studies.comparison import CellResult, GridPoint, Row, Setting, compare, folder_of, references
from unlora.studies.halves import HalfResult
from unlora.studies.lasting import relearned, utility
from unlora.studies.small_world import SmallWorld, build_small_world
from unlora.studies.tables import spread
from unlora.studies.unlearning import small_world_run, tofu_mini_run

STARTS = (
    "plain", "uniform", "shuffled", "marginal", "vila", "fila", "vila_published", "fila_published", "variance_full",
    "second_moment_lora", "reglu", "olora", "corda", "eva", "lora_ga", "contrast", "contrast_inputs",
)  # fmt: skip
GRIDS = {
    "small": ((2.5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), (1.6,)),
    "tofu-mini": ((2e-4, 5e-4, 2e-3), (1.6,)),
}
KNOWN = ("target", "retain_only")
UTILITY_FILES = {
    "retain": "held_out_perturbed.jsonl",
    "real_authors": "real_authors_perturbed.json",
    "world_facts": "world_facts_perturbed.json",
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
    parser.add_argument("--relearning", action="store_true", help="attack the chosen runs")
    parser.add_argument("--utility", type=Path, help="folder with the sets of TOFU's model utility")
    parser.add_argument("--json", type=Path)
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
    columns = {}
    if options.relearning:
        columns |= relearning_columns(chosen, options.output)
    if options.utility is not None:
        columns["model utility"] = utility_column(chosen, options.output, options.utility)
    if options.json is not None:
        write_json(options.json, {name: [cell._asdict() for cell in cells] for name, cells in chosen.items()})
    print(markdown(chosen, options.output, options.seeds, columns))


def small(seeds: Sequence[int]) -> Setting:
    """A world a seed; ten epochs, because 36 questions make five steps each."""
    worlds = {seed: build_small_world(SmallWorld(seed=seed), reporter=Say()) for seed in seeds}
    return Setting({seed: small_world_run(world, "cpu", epochs=10) for seed, world in worlds.items()})


def tofu_mini(seeds: Sequence[int], folder: Path) -> Setting:
    """One target for all seeds, which draw the data's order and the retain sample."""
    return Setting(dict.fromkeys(seeds, tofu_mini_run(folder, "cpu", epochs=5)))


def relearning_columns(chosen: Mapping[str, Sequence[CellResult]], folder: Path) -> dict[str, dict[str, str]]:
    """Heading -> row -> what comes back beyond the retain-only model's gain, mean over seeds and spread."""
    few, full = {}, {}
    for name, cells in chosen.items():
        found = [relearned(run_of(cell, folder), reporter=Say()) for cell in cells]
        few[name], full[name] = spread([one.few for one in found], 2), spread([one.full for one in found], 2)
    return {"comes back, a tenth taught": few, "comes back, all taught": full}


def utility_column(chosen: Mapping[str, Sequence[CellResult]], folder: Path, files: Path) -> dict[str, str]:
    """Row -> model utility of its first seed; the target's is the same for all."""
    sets = {name: load_examples(str(files / file)) for name, file in UTILITY_FILES.items()}
    column = {}
    for name, cells in chosen.items():
        found = utility(run_of(cells[0], folder), sets, reporter=Say())
        column |= {"target": f"{found['target']:.3f}", name: f"{found['unlearned']:.3f}"}
    return column


def run_of(cell: CellResult, folder: Path) -> Path:
    """Its run folder."""
    return folder_of(folder, cell.row, cell.point, cell.seed) / "run"


def markdown(
    chosen: Mapping[str, Sequence[CellResult]],
    folder: Path,
    seeds: Sequence[int],
    columns: Mapping[str, Mapping[str, str]],
) -> str:
    """One line a row, best balance first: mean over seeds, smallest and largest in brackets."""
    heading = "| loss and start | learning rate | retain weight | forget probability | kept | forget quality, log10 p "
    heading += "| extraction strength | balance |" + "".join(f" {name} |" for name in columns)
    lines = [heading, "|---" * (heading.count("|") - 1) + "|"]
    known = {seed: references(folder, seed) for seed in seeds}
    lines += [_line(name, "| ", [known[seed][name] for seed in seeds], known, seeds, None) for name in KNOWN]
    ranked = sorted(chosen.items(), key=lambda row: -sum(cell.test_balance for cell in row[1]))
    for name, cells in ranked:
        point = cells[0].point
        setting = f"{point.learning_rate:g} | {point.retain_weight:g}"
        lines.append(_line(name, setting, [c.test for c in cells], known, seeds, [c.test_balance for c in cells]))
    names = [*KNOWN, *(name for name, _ in ranked)]
    further = ["".join(f" {column.get(name, '')} |" for column in columns.values()) for name in names]
    return "\n".join([*lines[:2], *(line + more for line, more in zip(lines[2:], further, strict=True))])


def _line(
    name: str,
    setting: str,
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
    return f"| {name} | {setting} | " + " | ".join(columns) + " |"


if __name__ == "__main__":
    main()
