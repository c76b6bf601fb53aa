"""`unlora doctor`."""

import sys

import click

from unlora.cli.terminal import echo


@click.command()
def doctor() -> None:
    """Say what this machine can do, and what is missing."""
    from unlora.recipes.doctor import findings

    healthy = True
    for finding in findings():
        healthy = healthy and finding.fine
        echo(f"{'ok  ' if finding.fine else 'FAIL'} {finding.subject:<18} {finding.text}")
    if not healthy:
        sys.exit(1)
