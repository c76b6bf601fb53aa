"""`unlora report`."""

from pathlib import Path

import click

from unlora.cli.options import PATH
from unlora.cli.terminal import echo


@click.command()
@click.argument("run", type=PATH)
def report(run: Path) -> None:
    """Write report.html of a run again from its files."""
    from unlora.report import write_report

    echo(f"written: {write_report(run)}")
