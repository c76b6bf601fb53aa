"""`unlora push`."""

from pathlib import Path

import click

from unlora.cli.options import PATH, examples
from unlora.cli.terminal import Rows, echo
from unlora.regular_files import refuse_missing


@click.command(
    epilog=examples(
        "unlora push runs/x ORG/NAME --dry-run",
        "unlora push runs/x ORG/NAME --private",
        "unlora push runs/x/export/merged ORG/NAME",
    )
)
@click.argument("run", type=PATH)
@click.argument("repo")
@click.option("--dry-run", is_flag=True, help="List what would leave the machine; send nothing.")
@click.option("--private", is_flag=True, help="Make the repository private, where it is made now.")
@click.option("--with-texts", is_flag=True, help="Send the whole folder, record texts, answers and settings included.")
def push(run: Path, repo: str, dry_run: bool, private: bool, with_texts: bool) -> None:
    """Send the adapter of RUN, or a folder of 'unlora export', to the model hub as REPO."""
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.push import pack, send

    refuse_missing(run)
    parcel = pack(run, repo, with_texts=with_texts, reporter=ConsoleReporter())
    rows = Rows("file", "bytes", numbers=True)
    for file in parcel.files:
        rows.add(file.name, f"{file.size:,}")
    rows.print()
    total = f"{len(parcel.files)} files, {sum(file.size for file in parcel.files):,} bytes, from {parcel.folder}"
    if dry_run:
        echo(f"would be sent to {repo}: {total}; nothing has left this machine")
        return
    echo(f"sent: {total}\nto:   {send(parcel, private=private)}")
