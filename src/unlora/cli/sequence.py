"""`unlora sequence`."""

from pathlib import Path
from typing import Any

import click

from unlora.cli.options import (
    OUTPUT,
    TEMPLATE,
    TEMPLATE_HELP,
    examples,
    model_options,
    settings_from,
    settings_options,
)
from unlora.cli.terminal import Rows, echo


@click.command(
    epilog=examples(
        "unlora sequence --model DIR --forget may.jsonl --forget june.jsonl --retain retain.jsonl --output runs/seq",
        "unlora sequence --model DIR --forget muse:news/scal --retain muse:news/retain1 --mode separate --output r/s",
    )
)
@settings_options
@model_options
@click.option(
    "--forget",
    multiple=True,
    required=True,
    metavar="FILE",
    help="Records of one request; repeatable, in order. muse:news/sust[@FOLDER] and muse:news/scal are four requests.",
)
@click.option("--retain", metavar="FILE", help="Records to keep, the same in every step.")
@click.option("--template", type=TEMPLATE, help=TEMPLATE_HELP)
@click.option("--retain-only", metavar="DIR_OR_ID", help="A model that never saw any of the forget sets.")
@click.option(
    "--mode",
    type=click.Choice(["sequential", "separate"]),
    default="sequential",
    show_default=True,
    help="Each request on the model the last one left, or each on the target.",
)
@click.option("--output", type=OUTPUT, required=True, help="Folder of the sequence; the same command resumes it.")
def sequence(
    config: Path | None,
    preset: str | None,
    overrides: tuple[str, ...],
    forget: tuple[str, ...],
    mode: Any,
    output: Path,
    **flags: Any,
) -> None:
    """Forget one request after another, and see whether earlier ones stay forgotten and the rest is kept."""
    settings = settings_from(config, preset, overrides, {**flags, "forget": forget[0]})
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.sequence import unlearn_sequence

    record = unlearn_sequence(settings, forget, output, mode=mode, reporter=ConsoleReporter())
    if not settings.evaluation.skip:
        _print_probabilities(record)
    echo(f"written: {output / 'sequence.json'}")


def _print_probabilities(record: dict[str, Any]) -> None:
    """Print the mean answer probability of each set, before and after each step."""
    titles = ("step", "forget set", "before", "after", "earlier sets now", "retain before", "retain after")
    rows = Rows(*titles, title="mean probability of the true answers")
    for step in record["steps"]:
        sides = [(step["current"], "forget_probability"), (step["retain"], "retain_probability")]
        before_after = [_text(metrics[role][name]) for metrics, name in sides for role in ("target", "unlearned")]
        earlier = [_text(one["metrics"]["forget_probability"]) for one in step["earlier"]]
        rows.add(str(step["step"]), step["forget"], *before_after[:2], " ".join(earlier) or "–", *before_after[2:])
    rows.print(width=140)


def _text(measured: dict[str, Any]) -> str:
    return "–" if measured["value"] is None else f"{measured['value']:.3f}"
