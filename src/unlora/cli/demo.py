"""`unlora demo`."""

from pathlib import Path

import click

from unlora.cli.options import OUTPUT
from unlora.cli.terminal import echo


@click.command()
@click.option("--output", type=OUTPUT, default=Path("runs/demo"), show_default=True, help="Folder for everything made.")
def demo(output: Path) -> None:
    """Teach the embedded model a dozen fictitious people, make it forget two of them, and show before and after."""
    from unlora.cli.console import ConsoleReporter
    from unlora.cli.tables import print_answers, print_evaluation
    from unlora.recipes.demo import run_demo

    result = run_demo(output, reporter=ConsoleReporter())
    print_answers("Forgotten people", result.forgotten)
    print_answers("Kept people", result.kept)
    print_evaluation(result.evaluation)
    echo(f"\nIs it gone? {result.verdict}\n")
    for name, path in result.files.items():
        echo(f"{name}: {path}")
