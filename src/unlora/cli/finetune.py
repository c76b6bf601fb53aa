"""`unlora finetune`."""

from pathlib import Path
from typing import Any

import click

from unlora.cli.options import OUTPUT, TEMPLATE, TEMPLATE_HELP, examples, model_options, require
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
    from unlora.config import merge, parse_overrides
    from unlora.recipes.settings import FineTuneSettings

    model_keys = {"model": "name", "base": "base", "dtype": "dtype", "device": "device"}
    model_keys["trust_remote_code"] = "trust_remote_code"
    values: dict[str, Any] = {"model": {}}
    for flag, value in flags.items():
        if flag in model_keys and value is not None:
            values["model"][model_keys[flag]] = value
        elif flag not in model_keys and value is not None:
            values[flag] = list(value) if isinstance(value, tuple) else value
    settings = FineTuneSettings.from_mapping(merge(values, parse_overrides(overrides)), where="settings")
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.fine_tune import fine_tune

    fine_tune(settings, output, reporter=ConsoleReporter())
    echo(f"saved: {output}")
