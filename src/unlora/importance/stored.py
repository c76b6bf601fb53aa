"""Tensors of a file are those that its header speaks of: of the shape that their annotation and the header give."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unlora.errors import InputError


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
