"""A file of JSON lines, each hashed with the one before it: nothing in it can be changed without the next one telling.

Lines are only ever added. The file is written whole beside its place and renamed, so that a kill leaves the old one or
the new one. What a chain cannot show is that its end was cut off; whoever keeps the last hash elsewhere sees that too.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unlora.artifacts import parse_json_object, read_text, write_text
from unlora.errors import InputError

NUMBER, PREVIOUS, HASH = "entry", "previous", "hash"
BEFORE_THE_FIRST = ""
"""What the first entry has in the place of the hash before it."""


class Chain(NamedTuple):
    """What a file holds, as far as it is whole."""

    links: list[dict[str, Any]]
    fault: str | None
    """What is wrong with the line after them; None where nothing is."""


def linked(content: Mapping[str, Any], links: list[dict[str, Any]]) -> dict[str, Any]:
    """Return `content` as the entry that follows `links`: with its number, the hash before it, and its own.

    The own hash is SHA-256 of the entry without it, as JSON with sorted keys.
    """
    entry = {**content, NUMBER: len(links), PREVIOUS: links[-1][HASH] if links else BEFORE_THE_FIRST}
    return {**entry, HASH: _hash(entry)}


def write_chain(file: Path, links: list[dict[str, Any]]) -> None:
    """Write all entries, atomically.

    Raises:
        UnloraError: the disk is full or the folder cannot be written; the file is as it was.
    """
    write_text(file, "".join(f"{_line(link)}\n" for link in links))


def read_chain(file: Path) -> Chain:
    """Read the entries up to the first that is not what was written.

    Raises:
        InputError: missing, unreadable, or not UTF-8.
    """
    text = read_text(file)
    links: list[dict[str, Any]] = []
    for line in text.removesuffix("\n").split("\n"):
        where = f"{file}, line {len(links) + 1}"
        try:
            link = parse_json_object(line, where)
        except InputError as error:
            return Chain(links, str(error).rstrip("."))
        content = {key: value for key, value in link.items() if key not in (NUMBER, PREVIOUS, HASH)}
        if link != linked(content, links) or line != _line(link):
            return Chain(links, f"{where}: changed since it was written, or a line before it was taken out")
        links.append(link)
    return Chain(links, None if text.endswith("\n") else f"{file}: its last line has no end")


def _line(link: Mapping[str, Any]) -> str:
    return json.dumps(link, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(_line(entry).encode()).hexdigest()
