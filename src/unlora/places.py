"""What is asked of the file system before anything is written there."""

import os
from pathlib import Path


def broken_link(path: Path) -> Path | None:
    """Return the first link on the way to `path`, or `path` itself, that leads nowhere or round in a circle.

    What is not there at all can be made; what such a link stands in the place of cannot.
    """
    for place in (*reversed(path.parents), path):
        if place.is_symlink() and not os.path.exists(place):
            return place
    return None
