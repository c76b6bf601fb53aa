"""`unlora evaluate`."""

from pathlib import Path
from typing import Any

import click

from unlora.cli.options import FLAG_KEYS, OUTPUT, data_options, examples, model_options, require


@click.command(
    epilog=examples("unlora evaluate --model DIR --forget forget.jsonl --retain retain.jsonl --output evaluation")
)
@model_options
@data_options
@click.option("--adapter", metavar="DIR", help="An unlearning adapter for the model: both are measured, off and on.")
@click.option("--retain-only", metavar="DIR_OR_ID", help="A model that never saw the forget set, or its scores.jsonl.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="evaluation.* and data.* settings.")
@click.option("--output", type=OUTPUT, required=True, help="Folder for evaluation.json and the scores.")
def evaluate(overrides: tuple[str, ...], output: Path, **flags: Any) -> None:
    """Measure any model on a forget and a retain set."""
    require(("model", "forget"), flags, overrides)
    from unlora.recipes.presets import resolve_evaluation

    settings = resolve_evaluation(flags={FLAG_KEYS[name]: value for name, value in flags.items()}, overrides=overrides)
    from unlora.cli.console import ConsoleReporter
    from unlora.cli.tables import print_evaluation
    from unlora.recipes.evaluate import evaluate_checkpoint

    print_evaluation(evaluate_checkpoint(settings, output, reporter=ConsoleReporter()))
    click.echo(f"written: {output / 'evaluation.json'}")
