"""`unlora data`."""

import click

from unlora.cli.options import TEMPLATE, TEMPLATE_HELP
from unlora.cli.terminal import echo, echo_json


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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(
    file: str, against: str | None, model: str, base: str | None, template: str, max_length: int, as_json: bool
) -> None:
    """Say what FILE holds: counts, token lengths, truncation, duplicates, overlap, one example with its mask."""
    from unlora.data.check import check_data
    from unlora.data.sources import load_examples

    examples = load_examples(file)
    other = load_examples(against) if against is not None else None

    from unlora.data.tokenise import ExampleTokeniser
    from unlora.models.load import load_tokenizer

    tokenizer = load_tokenizer(model, base=base)
    report = check_data(examples, ExampleTokeniser(tokenizer, template=template, max_length=max_length), other)  # type: ignore[arg-type]
    if as_json:
        echo_json(report.to_json())
    else:
        for line in report.lines():
            echo(line)
