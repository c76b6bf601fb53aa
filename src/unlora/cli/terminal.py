"""The door to the terminal: whatever a command prints goes through here, and no control character does."""

import json
from typing import Any

import click

from unlora.characters import visible, visible_json


def echo(text: str, *, err: bool = False) -> None:
    """Print text on standard output, or on standard error."""
    click.echo(visible(text), err=err)


def echo_json(value: Any) -> None:
    """Print JSON for another program."""
    click.echo(visible_json(json.dumps(value, indent=2, ensure_ascii=False)))


class Rows:
    """A table on standard output: what stands in its cells is text, never markup."""

    def __init__(self, *titles: str, title: str | None = None, numbers: bool = False) -> None:
        """Start it.

        Args:
            titles: of the columns.
            title: of the table.
            numbers: whether all columns but the first stand to the right.
        """
        from rich.table import Table
        from rich.text import Text

        self._text = Text
        self._table: Table = Table(box=None, pad_edge=False, title=title, title_justify="left")
        for place, name in enumerate(titles):
            self._table.add_column(Text(visible(name)), justify="right" if numbers and place else "left")

    def add(self, *cells: str) -> None:
        """Add a row."""
        self._table.add_row(*(self._text(visible(cell)) for cell in cells))

    def print(self, width: int = 120) -> None:
        """Print it, at most `width` characters wide."""
        from rich.console import Console

        Console(width=width, highlight=False).print(self._table)
