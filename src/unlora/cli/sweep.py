"""`unlora sweep`."""

import importlib.util
from pathlib import Path

import click

from unlora.cli.options import OUTPUT, PATH, examples
from unlora.cli.terminal import Rows, echo

NEEDS = ("optuna", "matplotlib")
"""Packages of the extra `sweep`."""


@click.command(
    epilog=examples(
        "unlora sweep SWEEP.yaml --output runs/sweep --jobs 2",
        "unlora unlearn runs/sweep/best.yaml --output runs/best",
    )
)
@click.argument("config", type=PATH)
@click.option("--output", type=OUTPUT, required=True, help="Folder of the sweep; the same command goes on with it.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Trials at a time.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any key of the sweep's configuration.")
def sweep(config: Path, output: Path, jobs: int, overrides: tuple[str, ...]) -> None:
    """Try many settings, each start as often, and write the best: chosen on half of the questions, told on the rest."""
    from unlora.config import merge, parse_overrides, read_yaml
    from unlora.errors import InputError

    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise InputError(f"unlora sweep needs {' and '.join(missing)}: pip install 'unlora[sweep]'.")
    from unlora.recipes.sweep.settings import SweepSettings

    settings = SweepSettings.from_mapping(merge(read_yaml(config), parse_overrides(overrides)), where=str(config))
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.sweep.sweep import sweep as run

    record = run(settings, output, jobs=jobs, reporter=ConsoleReporter())
    rows = Rows("start", "trials", "failed", "steps", "best trial", "balance", "held out", numbers=True)
    for one in record["starts"]:
        figures = ["–" if one[name] is None else f"{one[name]:.3f}" for name in ("validation", "held_out")]
        rows.add(*(str(one[key]) for key in ("start", "trials", "failed", "steps", "best")), *figures)
    rows.print()
    echo(f"warning: {record['warning']}")
    echo(f"table: {output / 'sweep.md'}\npicture: {output / 'pareto.png'}\nbest: {output / 'best.yaml'}")
