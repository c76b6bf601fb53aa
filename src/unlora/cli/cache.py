"""`unlora cache`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unlora.cli.options import PATH, examples
from unlora.cli.terminal import Rows, echo

if TYPE_CHECKING:
    from unlora.recipes.cache import Found


@click.group()
def cache() -> None:
    """Look at what lies in the user's cache, or remove it: it keeps texts after a run folder is removed."""


@cache.command("ls")
def list_cache() -> None:
    """Kinds, numbers, sizes and ages of what is there."""
    from unlora.models.embedded import cache_folder
    from unlora.recipes.cache import cache_entries, summarise

    _print(summarise(cache_entries()))
    echo(f"folder: {cache_folder()}")


@cache.command(
    "rm",
    epilog=examples(
        "unlora cache rm scores audit", "unlora cache rm --run runs/x", "unlora cache rm --older-than 30",
        "unlora cache rm --all",
    ),
)  # fmt: skip
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@click.option("--run", type=PATH, help="Only what was asked about this run's forget set, and what was answered.")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Only what is older.")
@click.option("--all", "everything", is_flag=True, help="Every kind.")
def remove(kinds: tuple[str, ...], run: Path | None, older_than: float | None, everything: bool) -> None:
    """Remove what is in the cache: everything of a KIND (see 'unlora cache ls'), of a run, or of an age."""
    if not (kinds or run or older_than is not None or everything):
        raise click.UsageError("say what to remove: a kind, --run RUN, --older-than DAYS, or --all.")
    if kinds and everything:
        raise click.UsageError("--all goes with no kind.")
    from unlora.recipes.cache import chosen_entries, remove_entries, summarise

    chosen = chosen_entries(kinds, run=run, older_than_days=older_than)
    found = summarise(chosen)
    freed = remove_entries(chosen)
    if found:
        _print(found)
    echo(f"removed: {len(chosen)} entries, {freed:,} bytes")


def _print(found: "list[Found]") -> None:
    rows = Rows("kind", "entries", "bytes", "age in days", "what")
    for one in found:
        age = f"{one.newest_days:.1f} to {one.oldest_days:.1f}"
        rows.add(one.kind, str(one.entries), f"{one.size:,}", age, one.what)
    rows.print()
