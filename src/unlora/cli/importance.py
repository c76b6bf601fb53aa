"""`unlora importance`."""

from pathlib import Path
from typing import Any

import click

from unlora.cli.options import PATH, data_options, model_options, settings_from, settings_options


@click.command()
@settings_options
@model_options
@data_options
@click.option("--output", type=PATH, required=True, help="File to write (.safetensors).")
def importance(config: Path | None, preset: str | None, overrides: tuple[str, ...], output: Path, **flags: Any) -> None:
    r"""Measure importance only, and write the map.

    \b
    unlora importance --model DIR --forget forget.jsonl --retain retain.jsonl --preset vila --output map.safetensors
    """
    settings = settings_from(config, preset, overrides, flags)
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.importance import write_importance

    for line in write_importance(settings, output, reporter=ConsoleReporter()):
        click.echo(line)
