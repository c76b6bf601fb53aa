"""Files of example scores: JSON lines, a header with the protocol, then one line an item; unscored (NaN) is null.

The header counts the items, so that a file cut at the end of a line is known from a whole one.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter

from unlora.artifacts import nan_to_null, read_json_lines, refuse_missing_lines, write_text
from unlora.errors import InputError

Item = TypeVar("Item")


@dataclass(frozen=True)
class ScoreFile:
    """One kind of file."""

    kind: str
    """What it holds: "example scores"."""
    schema: int
    """Raised when a field means something else."""
    group: str
    """Key of a line that says where the item belongs: "set"."""

    @property
    def header(self) -> dict[str, Any]:
        """What the first line says beside the protocol."""
        return {"kind": f"unlora {self.kind}", "schema": self.schema}

    def save(self, path: Path, protocol: Mapping[str, Any], groups: Mapping[str, Sequence[Any]]) -> None:
        """Write items (dataclasses) atomically, group by group.

        Raises:
            UnloraError: the file cannot be written.
        """
        counts = {name: len(items) for name, items in groups.items()}
        records: list[dict[str, Any]] = [{**self.header, "counts": counts, "protocol": dict(protocol)}]
        for name, items in groups.items():
            records += [{self.group: name} | nan_to_null(asdict(item)) for item in items]
        write_text(path, "".join(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in records))

    def load(
        self, path: Path, build: Callable[[str, dict[str, Any]], Item]
    ) -> tuple[dict[str, list[Item]], Mapping[str, Any]]:
        """Read what `save` wrote: items by group, and the protocol.

        Args:
            path: the file.
            build: makes an item from its group and its record, in which unscored is None.

        Raises:
            InputError: missing, a line that `save` did not write, or fewer items than it wrote.
        """
        header, *records = read_json_lines(path)
        if {key: header.get(key) for key in self.header} != self.header or not isinstance(header.get("protocol"), dict):
            raise InputError(
                f"{path}, line 1: not the header of a file of {self.kind} that this version of unlora wrote."
            )
        groups: dict[str, list[Item]] = {}
        for line, record in enumerate(records, start=2):
            try:
                name = _text(record[self.group])
                item = {key: value for key, value in record.items() if key != self.group}
                groups.setdefault(name, []).append(build(name, item))
            except (KeyError, TypeError, ValueError):
                raise InputError(f"{path}, line {line}: not an example's scores as unlora writes them.") from None
        if "counts" in header:  # not in files of version 0.1.0
            refuse_missing_lines(path, header["counts"], records, self.group)
        return groups, header["protocol"]


def to_item(kind: type[Item], record: Mapping[str, Any]) -> Item:
    """Make an item (a dataclass) of what `save` wrote of it: null among its numbers is NaN again, lists are tuples.

    Raises:
        KeyError, TypeError, ValueError: a value missing, too many, or of another kind: a text is no number.
    """
    readers = _readers(kind)
    if unknown := record.keys() - readers.keys():
        raise TypeError(unknown)
    return kind(**{name: read(record[name]) for name, read in readers.items()})


@functools.cache
def _readers(kind: Any) -> dict[str, Callable[[Any], Any]]:
    return {field.name: _reader(field.type) for field in fields(kind)}


def _reader(kind: Any) -> Callable[[Any], Any]:
    if kind is float:
        return _number
    if kind == tuple[float, ...]:
        return lambda values: tuple(map(_number, _list(values)))
    if kind == tuple[str, ...]:
        return lambda values: tuple(map(_text, _list(values)))
    return TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python


_list = TypeAdapter(list[Any], config=ConfigDict(strict=True)).validate_python
_text = TypeAdapter(str, config=ConfigDict(strict=True)).validate_python
_strict_number = TypeAdapter(float, config=ConfigDict(strict=True)).validate_python


def _number(value: Any) -> float:
    """Turn null back into NaN."""
    return math.nan if value is None else _strict_number(value)
