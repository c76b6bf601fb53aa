"""`unlora presets`."""

from pathlib import Path

import click

from unlora.cli.options import OUTPUT
from unlora.cli.terminal import echo


@click.group()
def presets() -> None:
    """List the named settings, or copy one to edit."""


@presets.command("ls")
def list_presets() -> None:
    """Name and purpose of every preset."""
    from unlora.losses.forget_terms import FORGET_TERMS
    from unlora.run.presets import presets as all_presets
    from unlora.starts.table import STARTS

    known = all_presets()
    width = max(map(len, STARTS))
    echo("Whole recipes (--preset NAME):")
    for preset in known.values():
        echo(f"  {preset.name:<{width}}  {preset.summary}")
    echo("\nStarts (--start NAME):")
    for name, row in STARTS.items():
        echo(f"  {name:<{width}}  {row.summary} [{row.source}]")
    echo("\nLosses (--loss NAME): " + ", ".join(FORGET_TERMS))
    echo("\nAny loss goes with any start: --start contrast --loss npo. More in docs/presets.md and docs/losses.md.")


@presets.command("cp")
@click.argument("name")
@click.argument("file", type=OUTPUT)
def copy_preset(name: str, file: Path) -> None:
    """Write preset NAME to FILE, to be edited and given to 'unlora unlearn FILE'."""
    from unlora.artifacts import refuse_unwritable, write_text
    from unlora.errors import InputError
    from unlora.run.presets import preset

    text = preset(name).text
    if file.exists():
        raise InputError(f"{file}: already exists; choose another name.")
    refuse_unwritable(file, called="FILE")
    write_text(file, text)
    echo(f"written: {file}")
