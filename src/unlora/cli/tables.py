"""Tables on standard output."""

from collections.abc import Sequence
from typing import Any

from unlora.cli.terminal import Rows, echo
from unlora.level import hardly_forgotten
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


def print_whether_forgotten(record: dict[str, Any], *, aimed: bool) -> None:
    """Print a line where a run took next to nothing away: nothing failed, so nothing else says it.

    Args:
        record: of the evaluation.
        aimed: whether the run aimed at a level; it is not told to do so then.
    """
    asked = [record["models"].get(model, {}).get("metrics", {}) for model in ("target", "unlearned")]
    before, now = (metrics.get("forget_probability", {}).get("value") for metrics in asked)
    if before is not None and now is not None and hardly_forgotten(before, now):
        level = "" if aimed else " or aim at a level (--set level.aim=0.1)"
        echo(
            f"hardly forgotten: forget probability {before:.3f} in the target, {now:.3f} now; train more "
            f"(--set training.epochs=N){level}"
        )


def print_answers(title: str, answers: Sequence[tuple[str, str, str, str]]) -> None:
    """Print questions with the answers before and after; each answer is (question, truth, before, after)."""
    echo(f"\n{title}")
    for question, truth, before, after in answers:
        echo(f"  Q       {question}")
        echo(f"  taught  {folded(truth)}")
        echo(f"  before  {folded(before)}")
        echo(f"  after   {folded(after)}\n")


def folded(text: str, width: int = 100) -> str:
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
