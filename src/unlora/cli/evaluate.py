"""`unlora evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from unlora.cli.launch import process_count, several_processes
from unlora.cli.options import FLAG_KEYS, OUTPUT, data_options, examples, model_options, require
from unlora.cli.suites import TOFU, Suite
from unlora.cli.terminal import echo

SUITE_KEYS = {"template": "template", "retain_only": "retain_only"}
"""Keys that MUSE and WMDP have at the top of their settings."""


@click.command(
    epilog=examples(
        "unlora evaluate --model DIR --forget forget.jsonl --retain retain.jsonl --output evaluation",
        "unlora evaluate --model DIR --forget tofu:forget10 --retain tofu:retain90 --protocol open_unlearning ...",
        "unlora evaluate --suite muse:news@FOLDER --model DIR --adapter runs/x/adapter --output evaluation",
        "unlora evaluate --suite wmdp:bio,mmlu --model DIR --adapter runs/x/adapter --output evaluation",
    )
)
@click.option(
    "--suite", type=Suite(), default=TOFU, help="tofu (your own sets too), muse:CORPUS or wmdp[:TASKS|@FILE]."
)
@model_options
@data_options
@click.option("--adapter", metavar="DIR", help="An unlearning adapter for the model: both are measured, off and on.")
@click.option(
    "--retain-only", metavar="DIR_OR_ID", help="A model that never saw the forget set, its scores.jsonl, or TOFU logs."
)
@click.option(
    "--protocol",
    type=click.Choice(["unlora", "tofu", "open_unlearning"]),
    help="How many items and tokens, which prompt.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any other setting, by its dotted key.")
@click.option("--output", type=OUTPUT, required=True, help="Folder for evaluation.json and the scores.")
@several_processes
def evaluate(suite: tuple[str, dict[str, Any]], overrides: tuple[str, ...], output: Path, **flags: Any) -> None:
    """Measure any model on a forget and a retain set, on MUSE, or on WMDP."""
    from unlora.cli.console import ConsoleReporter
    from unlora.cli.tables import print_evaluation

    benchmark, chosen = suite
    if benchmark == TOFU:
        record = _evaluate_sets(flags, overrides, output, ConsoleReporter())
    else:
        record = _evaluate_benchmark(benchmark, chosen, flags, overrides, output, ConsoleReporter())
    print_evaluation(record)
    echo(f"written: {output / 'evaluation.json'}")


def _evaluate_sets(flags: dict[str, Any], overrides: Sequence[str], output: Path, reporter: Any) -> dict[str, Any]:
    require(("model", "forget"), flags, overrides)
    from unlora.recipes.presets import resolve_evaluation

    settings = resolve_evaluation(flags={FLAG_KEYS[name]: value for name, value in flags.items()}, overrides=overrides)
    from unlora.recipes.evaluate import evaluate_checkpoint

    return evaluate_checkpoint(settings, output, reporter=reporter)


def _evaluate_benchmark(
    benchmark: str, chosen: dict[str, Any], flags: dict[str, Any], overrides: Sequence[str], output: Path, reporter: Any
) -> dict[str, Any]:
    require(("model",), flags, overrides)
    if process_count() > 1:
        raise click.UsageError(f"--suite {benchmark}: runs in one process.")
    for name in ("forget", "retain", "protocol"):
        if flags[name] is not None:
            raise click.UsageError(f"--{name} does not go with --suite {benchmark}, which brings its own data.")
    keys = {name: SUITE_KEYS.get(name, FLAG_KEYS[name]) for name, value in flags.items() if value is not None}
    given = {key: flags[name] for name, key in keys.items()} | chosen
    from unlora.recipes.presets import lay_over

    values = lay_over({"model": {}}, given, overrides)
    if benchmark == "muse":
        from unlora.recipes.muse import evaluate_muse
        from unlora.recipes.muse_settings import MuseSettings

        return evaluate_muse(MuseSettings.from_mapping(values, where="settings"), output, reporter=reporter)
    from unlora.recipes.wmdp import evaluate_wmdp
    from unlora.recipes.wmdp_settings import WmdpSettings

    return evaluate_wmdp(WmdpSettings.from_mapping(values, where="settings"), output, reporter=reporter)
