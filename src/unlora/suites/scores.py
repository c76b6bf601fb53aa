"""What a model was asked and what it answered, item by item: everything that metrics are made of, and its files.

A file is JSON lines: a header with the protocol, then one line an item; unscored (NaN) is null. The header counts the
items, so that a file cut at the end of a line is known from a whole one.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast, runtime_checkable

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from unlora.artifacts import nan_to_null, read_json_lines, refuse_missing_lines, write_text
from unlora.errors import InputError

Item = TypeVar("Item")

REMEDY = "score both models with the same data and settings"


@runtime_checkable
class AskedItem(Protocol):
    """An item that a model is or was asked."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """What was asked, and where it was cut: equal for the same item from another file."""
        ...


@runtime_checkable
class AskedSets(Protocol):
    """What one model is or was asked, and how."""

    @property
    def sets(self) -> Mapping[str, Sequence[AskedItem]]: ...

    @property
    def protocol(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class ModelScores(Generic[Item]):
    """One model's scores on every set it was asked about."""

    sets: Mapping[str, tuple[Item, ...]]
    """By name; those that were given."""
    protocol: Mapping[str, Any]
    """How they were made."""


def check_comparable(
    scores: AskedSets, reference: AskedSets, compared: Mapping[str, str], *, unit: str = "questions"
) -> None:
    """Refuse to set two models side by side that were not asked the same thing in the same way.

    Args:
        scores: of the one, or what it is going to be asked.
        reference: the same of the other.
        compared: keys of the protocol that must agree -> what a message calls them.
        unit: what a message calls the items of a set.

    Raises:
        InputError: one of them does not, or other sets, or other items in one.
    """
    for key, what in compared.items():
        if scores.protocol.get(key) != reference.protocol.get(key):
            raise InputError(f"scores: the two models were asked with different {what}; {REMEDY}.")
    if scores.sets.keys() != reference.sets.keys():
        names = [", ".join(one.sets) for one in (scores, reference)]
        raise InputError(f"scores: one model was asked {names[0]}, another {names[1]}; {REMEDY}.")
    for name in scores.sets:
        # The order does not matter.
        asked, others = (sorted(item.identity for item in one.sets[name]) for one in (scores, reference))
        if asked != others:
            what = f"{name} questions" if unit == "questions" else name
            counts = f"{len(asked)} and {len(others)} {unit}"
            raise InputError(f"scores: the two models were asked different {what} ({counts}); {REMEDY}.")


@dataclass(frozen=True)
class ScoreFile(Generic[Item]):
    """One kind of file."""

    kind: str
    """What it holds: "example scores"."""
    schema: int
    """Raised when a field means something else."""
    group: str
    """Key of a line that says where the item belongs: "set"."""
    items: type[Item] | Mapping[str, type[Item]]
    """Dataclass of its items, or one for each set."""
    came_later: Mapping[str, Any] = field(default_factory=dict)
    """Of an item, what older files do not have."""
    protocol: type[BaseModel] | None = None
    """What is read of the protocol again."""

    @property
    def header(self) -> dict[str, Any]:
        """What the first line says beside the protocol."""
        return {"kind": f"unlora {self.kind}", "schema": self.schema}

    def save(self, path: Path, scores: ModelScores[Item]) -> None:
        """Write scores (dataclasses) atomically, set by set.

        Raises:
            UnloraError: the file cannot be written.
        """
        counts = {name: len(items) for name, items in scores.sets.items()}
        records: list[dict[str, Any]] = [{**self.header, "counts": counts, "protocol": dict(scores.protocol)}]
        for name, items in scores.sets.items():
            records += [{self.group: name} | nan_to_null(asdict(item)) for item in cast(Sequence[Any], items)]
        write_text(path, "".join(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in records))

    def load(self, path: Path) -> ModelScores[Item]:
        """Read what `save` wrote.

        Raises:
            InputError: missing, a line that `save` did not write, or fewer items than it wrote.
        """
        header, *records = read_json_lines(path)
        if {key: header.get(key) for key in self.header} != self.header or not isinstance(header.get("protocol"), dict):
            raise InputError(
                f"{path}, line 1: not the header of a file of {self.kind} that this version of unlora wrote."
            )
        sets: dict[str, list[Item]] = {}
        for line, record in enumerate(records, start=2):
            try:
                name = _text(record[self.group])
                item = {key: value for key, value in record.items() if key != self.group}
                kind = self.items if isinstance(self.items, type) else self.items[name]
                sets.setdefault(name, []).append(to_item(kind, {**self.came_later, **item}))
            except (KeyError, TypeError, ValueError):
                raise InputError(f"{path}, line {line}: not an example's scores as unlora writes them.") from None
        if "counts" in header:  # not in files of version 0.1.0
            refuse_missing_lines(path, header["counts"], records, self.group)
        try:
            if self.protocol is not None:
                self.protocol.model_validate(header["protocol"])
        except ValidationError as error:
            key = ".".join(map(str, error.errors()[0]["loc"]))
            raise InputError(f"{path}, line 1: protocol.{key}: not as unlora writes it.") from None
        return ModelScores({name: tuple(items) for name, items in sets.items()}, header["protocol"])


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
