"""`unlora importance`."""

from pathlib import Path
from typing import Any

import click

from unlora.cli.launch import several_processes
from unlora.cli.options import OUTPUT, data_options, examples, model_options, settings_from, settings_options
from unlora.cli.terminal import echo


@click.command(
    epilog=examples(
        "unlora importance --model DIR --forget forget.jsonl --retain retain.jsonl --output map.safetensors"
    )
)
@settings_options
@model_options
@data_options
@click.option("--output", type=OUTPUT, required=True, help="File to write (.safetensors).")
@several_processes
def importance(config: Path | None, preset: str | None, overrides: tuple[str, ...], output: Path, **flags: Any) -> None:
    """Measure importance only, and write the map."""
    settings = settings_from(config, preset, overrides, flags)
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.importance import write_importance

    for line in write_importance(settings, output, reporter=ConsoleReporter()):
        echo(line)
