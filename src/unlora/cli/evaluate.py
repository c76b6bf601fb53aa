"""`unlora evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from unlora.cli.launch import several_processes
from unlora.cli.options import FLAG_KEYS, OUTPUT, data_options, examples, model_options, require
from unlora.cli.terminal import echo
from unlora.errors import InputError
from unlora.suites.table import NamedSuite, read_name

SUITE_KEYS = {"template": "template", "retain_only": "retain_only"}
"""Keys that the settings of one suite have at their top."""


class SuiteName(click.ParamType):
    """Turns the text into a `NamedSuite`."""

    name = "suite"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> NamedSuite:
        if not isinstance(value, str):
            return value
        try:
            return read_name(value)
        except InputError as error:
            self.fail(str(error), param, ctx)


@click.command(
    epilog=examples(
        "unlora evaluate --model DIR --forget forget.jsonl --retain retain.jsonl --output evaluation",
        "unlora evaluate --model DIR --forget tofu:forget10 --retain tofu:retain90 --protocol open_unlearning ...",
        "unlora evaluate --suite muse:news@FOLDER --model DIR --adapter runs/x/adapter --output evaluation",
        "unlora evaluate --suite wmdp:bio,mmlu --suite muse:news --model DIR --adapter runs/x/adapter --output both",
    )
)
@click.option(
    "--suite",
    "suites",
    type=SuiteName(),
    multiple=True,
    default=("tofu",),
    help="tofu (your own sets too), muse:CORPUS, wmdp[:TASKS|@FILE], rwku:NAME or module:Class; repeatable.",
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
def evaluate(suites: Sequence[NamedSuite], overrides: tuple[str, ...], output: Path, **flags: Any) -> None:
    """Measure any model on a forget and a retain set, on MUSE, WMDP or RWKU."""
    from unlora.cli.console import ConsoleReporter
    from unlora.cli.tables import print_evaluation

    settings = _settings(suites, flags, overrides)
    from unlora.recipes.evaluate import evaluate_checkpoint

    print_evaluation(evaluate_checkpoint(settings, output, reporter=ConsoleReporter()))
    echo(f"written: {output / 'evaluation.json'}")


def _settings(suites: Sequence[NamedSuite], flags: dict[str, Any], overrides: Sequence[str]) -> Any:
    """Settings of the evaluation; those of one suite that brings its own data are its own fields."""
    own_data = all(one.brings_data for one in suites)
    require(("model",) if own_data else ("model", "forget"), flags, overrides)
    for name in ("forget", "retain", "protocol") if own_data else ():
        if flags[name] is not None:
            names = " and ".join(one.kind for one in suites)
            raise click.UsageError(f"--{name} does not go with --suite {names}, which brings its own data.")
    if own_data and len(suites) == 1:
        keys = {name: SUITE_KEYS.get(name, FLAG_KEYS[name]) for name, value in flags.items() if value is not None}
        given = {key: flags[name] for name, key in keys.items()} | suites[0].settings
        from unlora.recipes.evaluate import settings_of_one
        from unlora.run.presets import lay_over

        values = lay_over({"model": {}}, given, overrides)
        return settings_of_one(suites[0].find_class()).from_mapping(values, where="settings")
    from unlora.run.presets import resolve_evaluation

    given = {FLAG_KEYS[name]: value for name, value in flags.items()}
    return resolve_evaluation(suites=[one.name for one in suites], flags=given, overrides=overrides)
