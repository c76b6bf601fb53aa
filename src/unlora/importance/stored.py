"""Files of maps: read as what they say they are, of tensors that fit their header, and for one model alone."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unlora.artifacts import read_tensors
from unlora.errors import InputError


def read_map_file(path: Path, kind: str, schema_version: int, *, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of maps: its tensors, and its header without the kind.

    Args:
        path: the file.
        kind: what the header must say that it is.
        schema_version: likewise.
        what: it is not, in words, where it says something else; with what to do.

    Raises:
        InputError: not a file of that kind, or another schema version.
    """
    tensors, header = read_tensors(path)
    if header.pop("kind", None) != kind:
        raise InputError(f"{path}: not {what}")
    if header.get("schema_version") != schema_version:
        found = header.get("schema_version")
        raise InputError(f"{path}: schema version {found}; this unlora reads {schema_version}.")
    return tensors, header


def refuse_other_shapes(
    measured: Mapping[str, tuple[int, int]], asked: Mapping[str, tuple[int, int]], what: str, where: str
) -> None:
    """Refuse a map that lacks a layer, or holds one of another shape.

    Args:
        measured: canonical name -> (d_out, d_in) of every layer of the map.
        asked: of those that it must have.
        what: what the map is of.
        where: what the message calls it.

    Raises:
        InputError: naming the first.
    """
    missing = [name for name in asked if name not in measured]
    if missing:
        raise InputError(f"{where}: holds no {what} for target module '{missing[0]}' ({len(missing)} missing).")
    for name, shape in asked.items():
        if tuple(measured[name]) != tuple(shape):
            raise InputError(f"{where}: module '{name}' was measured with shape {tuple(measured[name])}, here {shape}.")


def refuse_other_weights(measured_on: str | None, fingerprint: str | None, where: str) -> None:
    """Refuse a map of another model; None on either side does not compare.

    Raises:
        InputError: with the beginning of both hashes.
    """
    if fingerprint is not None and measured_on is not None and measured_on != fingerprint:
        raise InputError(
            f"{where}: measured on another model (weights {measured_on[:12]}, here {fingerprint[:12]}); "
            "measure this model with 'unlora importance'."
        )


def take_fields(
    kind: Any,
    names: Iterable[str],
    tensors: Mapping[str, Tensor],
    prefix: str,
    sizes: Mapping[str, int | None],
    where: Path,
) -> dict[str, Tensor]:
    """Take the tensors of one record out of a file.

    Args:
        kind: dataclass of tensors, annotated with their axes.
        names: of its fields.
        tensors: of the file.
        prefix: of their names in it.
        sizes: by axis.
        where: the file.

    Raises:
        InputError: one is missing, or has another shape or no floating-point numbers.
    """
    axes = {field.name: _axes(field.type) for field in dataclasses.fields(kind)}
    found = {}
    for name in names:
        key = f"{prefix}|{name}"
        if key not in tensors:
            raise InputError(f"{where}: incomplete; tensor '{key}' is missing.")
        found[name] = tensors[key]
        expected = tuple(sizes[axis] for axis in axes[name])
        if tuple(found[name].shape) != expected or not found[name].is_floating_point():
            has = f"{str(found[name].dtype).removeprefix('torch.')} of shape {tuple(found[name].shape)}"
            raise InputError(
                f"{where}: tensor '{key}' is {has}; by the header it is floating-point of shape {expected}."
            )
    return found


def _axes(kind: Any) -> list[str]:
    tensor = next((one for one in typing.get_args(kind) if hasattr(one, "dim_str")), kind)
    return str(tensor.dim_str).split()
