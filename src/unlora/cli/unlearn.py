"""`unlora unlearn`."""

from pathlib import Path
from typing import Any

import click

from unlora.cli.launch import several_processes
from unlora.cli.options import OUTPUT, data_options, examples, model_options, settings_from, settings_options
from unlora.cli.terminal import echo


@click.command(
    epilog=examples(
        "unlora unlearn --model DIR --forget forget.jsonl --retain retain.jsonl --output runs/x",
        "unlora unlearn CONFIG.yaml --set training.learning_rate=1e-4 --output runs/x",
    )
)
@settings_options
@model_options
@data_options
@click.option("--retain-only", metavar="DIR_OR_ID", help="A model that never saw the forget set, or its scores.jsonl.")
@click.option(
    "--report-to",
    multiple=True,
    metavar="NAME",
    callback=lambda _context, _option, names: list(names) or None,
    help="A tracker to report to as well: tensorboard, wandb, trackio, ...; repeatable.",
)
@click.option("--output", type=OUTPUT, required=True, help="Run folder; the same command resumes it.")
@several_processes
def unlearn(config: Path | None, preset: str | None, overrides: tuple[str, ...], output: Path, **flags: Any) -> None:
    """Forget records: measure importance, train an adapter, evaluate, write a run folder."""
    settings = settings_from(config, preset, overrides, flags)
    from unlora.cli.console import ConsoleReporter
    from unlora.cli.tables import print_evaluation, print_whether_forgotten
    from unlora.recipes.unlearn import unlearn as run
    from unlora.run.level import level_source

    evaluation = run(settings, output, reporter=ConsoleReporter())
    if evaluation:
        print_evaluation(evaluation)
        print_whether_forgotten(evaluation, aimed=level_source(settings) is not None)
    echo(f"adapter: {output / 'adapter'}")
