"""`unlora finetune`."""

from pathlib import Path
from typing import Any

import click

from unlora.cli.options import FLAG_KEYS, OUTPUT, TEMPLATE, TEMPLATE_HELP, examples, model_options, require
from unlora.cli.terminal import echo


@click.command(
    epilog=examples(
        "unlora finetune --model DIR --data all.jsonl --output target",
        "unlora finetune --model DIR --data all.jsonl --exclude forget.jsonl --output retain_only",
    )
)
@model_options
@click.option("--data", "data", multiple=True, required=True, metavar="FILE", help="Examples to learn; repeatable.")
@click.option("--exclude", multiple=True, metavar="FILE", help="Examples to leave out (makes a retain-only model).")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any other setting: rank, epochs, ...")
@click.option("--template", type=TEMPLATE, help=TEMPLATE_HELP)
@click.option("--method", type=click.Choice(["lora", "full"]), help="Train an adapter, or every weight.")
@click.option("--epochs", type=int, help="Passes over the data.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option("--seed", type=int, help="Seed.")
@click.option("--output", type=OUTPUT, required=True, help="Folder of the new adapter or model.")
def finetune(overrides: tuple[str, ...], output: Path, **flags: Any) -> None:
    """Teach a model some records: makes target models, and retain-only models with --exclude."""
    require(("model",), flags, overrides)
    from unlora.run.presets import lay_over
    from unlora.run.settings import FineTuneSettings

    keys = {name: key for name, key in FLAG_KEYS.items() if key.startswith("model.")}
    given = {keys.get(name, name): list(value) if isinstance(value, tuple) else value for name, value in flags.items()}
    settings = FineTuneSettings.from_mapping(lay_over({"model": {}}, given, overrides), where="settings")
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.fine_tune import fine_tune

    fine_tune(settings, output, reporter=ConsoleReporter())
    echo(f"saved: {output}")
