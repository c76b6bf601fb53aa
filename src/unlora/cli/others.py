"""Commands that other distributions bring, by an entry point in the group `unlora.commands`.

They are looked up only for a name that is none of ours and for the list of the help, and loaded only then.
"""

from functools import cache
from typing import TYPE_CHECKING

import click

from unlora.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "unlora.commands"
BROUGHT_BY = {"study": 'pip install "unlora[research]", or pip install ./research in a checkout'}
"""Name -> how to install it, of commands that this project has outside the package."""


def others_names() -> list[str]:
    """Names of the commands that installed distributions bring, by the alphabet."""
    return sorted(_entry_points())


def others_command(name: str) -> click.Command | None:
    """The command of that name; where it cannot be had though it is known, one that says why. None: nobody knows it."""
    if (found := _entry_points().get(name)) is None:
        if (how := BROUGHT_BY.get(name)) is None:
            return None
        return _refusal(name, f"{name}: is not installed; install it with: {how}.")
    try:
        command = found.load()
    except Exception as error:
        reason = str(error) or type(error).__name__
        return _refusal(name, f"{name}: the module {found.module} that brings it cannot be loaded: {reason}.")
    if not isinstance(command, click.Command):
        return _refusal(name, f"{name}: {found.value} is no command of click.")
    return command


@cache
def _entry_points() -> dict[str, "EntryPoint"]:
    from importlib.metadata import entry_points  # Half of all that --help of one of our own commands would load.

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _refusal(name: str, message: str) -> click.Command:
    """A command that takes any words, --help too, and refuses with `message`."""

    def refuse(words: tuple[str, ...]) -> None:
        raise InputError(message)

    anything = {"ignore_unknown_options": True, "help_option_names": []}
    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(name, anything, refuse, [words], help=message, add_help_option=False)
