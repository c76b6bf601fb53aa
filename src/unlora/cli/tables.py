"""Tables on standard output."""

from collections.abc import Sequence
from typing import Any

from unlora.cli.terminal import Rows, echo
from unlora.suites.record import comparison_rows, missing_notes


def print_evaluation(record: dict[str, Any]) -> None:
    """Print an evaluation record: one row a metric, one column a model; why something is missing; further suites."""
    models = list(record["models"])
    rows = Rows("metric", *models, numbers=True)
    for metric, values in comparison_rows(record):
        rows.add(metric, *[values.get(model, "") for model in models])
    rows.print()
    for note in [*record.get("notes", []), *missing_notes(record)]:
        echo(f"note: {note}")
    for label, other in record.get("others", {}).items():
        echo(f"\n{label}")
        print_evaluation(other)


def print_answers(title: str, answers: Sequence[tuple[str, str, str, str]]) -> None:
    """Print questions with the answers before and after; each answer is (question, truth, before, after)."""
    echo(f"\n{title}")
    for question, truth, before, after in answers:
        echo(f"  Q       {question}")
        echo(f"  taught  {one_line(truth)}")
        echo(f"  before  {one_line(before)}")
        echo(f"  after   {one_line(after)}\n")


def one_line(text: str, width: int = 100) -> str:
    """Fold white space and cut."""
    folded = " ".join(text.split())
    return folded if len(folded) <= width else folded[: width - 1] + "…"


def print_audit(record: dict[str, Any]) -> None:
    """Print an audit: one row an attack, then the verdict."""
    rows = Rows("attack", "outcome", "finding")
    for name, found in record["attacks"].items():
        rows.add(name, found["outcome"], found["sentence"])
    rows.print()
    echo(f"\n{record['verdict']}\n{record['scope']}")
