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
    from unlora.run.finished import refuse_changed_adapter

    if (run / "adapter").is_dir() and (run / "evaluation.json").is_file():
        refuse_changed_adapter(run)
    echo(f"written: {write_report(run)}")
