"""`unlora data`."""

from typing import Any

import click

from unlora.cli.options import TEMPLATE, TEMPLATE_HELP
from unlora.cli.terminal import echo, echo_json

CHECK_KEYS = {
    "model": "model.name",
    "base": "model.base",
    "template": "data.template",
    "max_length": "data.max_length",
}
"""Flag -> dotted key, as in `unlora unlearn`."""


@click.group()
def data() -> None:
    """Look at data before using it."""


@data.command()
@click.argument("file")
@click.option("--against", metavar="FILE", help="The other set: shows examples that are in both.")
@click.option("--model", default="embedded", show_default=True, metavar="DIR_OR_ID", help="Whose tokenizer counts.")
@click.option("--base", metavar="DIR_OR_ID", help="Base of an adapter folder.")
@click.option("--template", type=TEMPLATE, default="auto", show_default=True, help=TEMPLATE_HELP)
@click.option("--max-length", type=click.IntRange(min=8), default=512, show_default=True, help="In tokens.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any other setting of section data.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: str, against: str | None, as_json: bool, overrides: tuple[str, ...], **flags: Any) -> None:
    """Say what FILE holds: counts, token lengths, truncation, duplicates, overlap, one example with its mask."""
    from unlora.recipes.data_check import check_file
    from unlora.run.presets import resolve_data_check

    keys = {CHECK_KEYS[name]: value for name, value in flags.items()}
    settings = resolve_data_check(flags=keys | {"data.forget": file}, overrides=overrides)
    report = check_file(settings, against)
    if as_json:
        echo_json(report.to_json())
    else:
        for line in report.lines():
            echo(line)
