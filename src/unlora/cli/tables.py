"""Tables on standard output."""

from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from unlora.evaluation.record import comparison_rows, missing_notes


def print_evaluation(record: dict[str, Any]) -> None:
    """Print an evaluation record: one row a metric, one column a model; then why something is missing."""
    models = list(record["models"])
    table = Table(*["metric", *models], box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for metric, values in comparison_rows(record):
        table.add_row(metric, *[values.get(model, "") for model in models])
    Console(width=120, highlight=False).print(table)
    for note in missing_notes(record):
        click.echo(f"note: {note}")


def print_answers(title: str, answers: Sequence[tuple[str, str, str, str]]) -> None:
    """Print questions with the answers before and after; each answer is (question, truth, before, after)."""
    click.echo(f"\n{title}")
    for question, truth, before, after in answers:
        click.echo(f"  Q       {question}")
        click.echo(f"  taught  {one_line(truth)}")
        click.echo(f"  before  {one_line(before)}")
        click.echo(f"  after   {one_line(after)}\n")


def one_line(text: str, width: int = 100) -> str:
    """Fold white space and cut."""
    folded = " ".join(text.split())
    return folded if len(folded) <= width else folded[: width - 1] + "…"


def print_audit(record: dict[str, Any]) -> None:
    """Print an audit: one row an attack, then the verdict."""
    table = Table("attack", "outcome", "finding", box=None, pad_edge=False)
    for name, found in record["attacks"].items():
        table.add_row(name, found["outcome"], found["sentence"])
    Console(width=120, highlight=False).print(table)
    click.echo(f"\n{record['verdict']}\n{record['scope']}")
