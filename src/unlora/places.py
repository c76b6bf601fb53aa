"""What is asked of the file system before something is written there, and who may read it afterwards."""

import os
from pathlib import Path
from typing import NamedTuple


def broken_link(path: Path) -> Path | None:
    """Return the first link on the way to `path`, or `path` itself, that leads nowhere or round in a circle.

    What is not there at all can be made; what such a link stands in the place of cannot.
    """
    for place in (*reversed(path.parents), path):
        if place.is_symlink() and not os.path.exists(place):
            return place
    return None


def link_out(folder: Path) -> Path | None:
    """Return the first link below `folder` that leads to a folder elsewhere."""
    whole = Path(os.path.realpath(folder))
    for place, names, _ in os.walk(folder):
        for name in names:
            link = Path(place) / name
            if link.is_symlink() and not Path(os.path.realpath(link)).is_relative_to(whole):
                return link
    return None


class Modes(NamedTuple):
    """Who may read what is made: a file and a folder."""

    file: int
    folder: int


def modes() -> Modes:
    """What the user's umask leaves; temporary files and folders are for their owner alone until they are whole."""
    umask = os.umask(0o077)  # It cannot be read otherwise.
    os.umask(umask)
    return Modes(0o666 & ~umask, 0o777 & ~umask)
