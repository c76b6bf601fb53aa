"""Files of example scores: JSON lines, a header with the protocol, then one line an item; unscored (NaN) is null."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from unlora.artifacts import nan_to_null, parse_json_object, write_text
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

    def save(self, path: Path, protocol: Mapping[str, Any], groups: Mapping[str, Iterable[Any]]) -> None:
        """Write items (dataclasses) atomically, group by group.

        Raises:
            UnloraError: the file cannot be written.
        """
        records: list[dict[str, Any]] = [{**self.header, "protocol": dict(protocol)}]
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
            InputError: missing, or a line that `save` did not write.
        """
        try:
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a file of {self.kind} that unlora wrote.") from None
        header = parse_json_object(lines[0], f"{path}, line 1")
        if {key: header.get(key) for key in self.header} != self.header or not isinstance(header.get("protocol"), dict):
            raise InputError(
                f"{path}, line 1: not the header of a file of {self.kind} that this version of unlora wrote."
            )
        groups: dict[str, list[Item]] = {}
        for number, line in enumerate(lines[1:], start=2):
            where = f"{path}, line {number}"
            record = parse_json_object(line, where)
            try:
                name = record.pop(self.group)
                groups.setdefault(name, []).append(build(name, record))
            except (KeyError, TypeError, ValueError):
                raise InputError(f"{where}: not an example's scores as unlora writes them.") from None
        return groups, header["protocol"]


def number(value: float | None) -> float:
    """Turn null back into NaN."""
    return math.nan if value is None else float(value)
