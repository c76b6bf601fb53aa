"""`unlora report`."""

from pathlib import Path

import click

from unlora.cli.options import OUTPUT, PATH, examples
from unlora.cli.terminal import echo
from unlora.regular_files import refuse_missing


@click.command(
    epilog=examples(
        "unlora report runs/x",
        "unlora report runs/x runs/y runs/z --output comparison.html",
        "unlora report runs/x npo/evals/TOFU_EVAL.json --output comparison.html",
    )
)
@click.argument("runs", type=PATH, nargs=-1, required=True, metavar="RUN...")
@click.option("--output", type=OUTPUT, metavar="FILE", help="The page about several runs.")
def report(runs: tuple[Path, ...], output: Path | None) -> None:
    """Write report.html of a run again from its files, or one page of several runs and of OpenUnlearning's logs."""
    from unlora.report.logs import is_log

    for run in runs:
        if len(runs) == 1 or not is_log(run):
            refuse_missing(run)
    if len(runs) == 1 and output is not None:
        raise click.UsageError("--output names the page about several runs; that of one run is its report.html.")
    if len(runs) > 1 and output is None:
        raise click.UsageError("Missing option '--output': several runs are compared in one page.")
    from unlora.report import write_comparison, write_report
    from unlora.run.finished import refuse_changed_adapter

    for run in runs:
        if (run / "adapter").is_dir() and (run / "evaluation.json").is_file():
            refuse_changed_adapter(run)
    pages = [write_report(run) for run in runs] if output is None else [write_comparison(runs, output)]
    echo(f"written: {pages[0]}")
