"""Tables of a study: written for other tools, read back, and shown in Markdown."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas

from unlora.artifacts import atomic_path
from unlora.errors import InputError


def write_table(table: pandas.DataFrame, folder: Path) -> None:
    """Write table.csv and table.parquet, every number in full."""
    with atomic_path(folder / "table.csv") as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(folder / "table.parquet") as temporary:
        table.to_parquet(temporary, index=False)


def read_table(path: Path) -> pandas.DataFrame:
    """Read a table.csv; only an empty field is a missing value, so that a cell may be called "none".

    Raises:
        InputError: the file is not there or is no table.
    """
    try:
        return pandas.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no table of a study ({' '.join(str(error).split())}).") from None


def spread(values: Iterable[float], digits: int) -> str:
    """Mean, with the smallest and the largest in brackets where there are several; missing values are counted.

    Args:
        values: one a seed; NaN is a run without this value.
        digits: after the point.
    """
    every = list(values)
    found = [value for value in every if not math.isnan(value)]
    if not found:
        return "none"
    text = f"{math.fsum(found) / len(found):.{digits}f}"
    if len(found) > 1:
        text += f" [{min(found):.{digits}f}, {max(found):.{digits}f}]"
    return text if len(found) == len(every) else f"{text} ({len(found)} of {len(every)})"


def paired_differences(
    table: pandas.DataFrame, values: str, one: str, other: str, *, by: str, within: str | list[str]
) -> list[float]:
    """Differences between two groups, one for each place that has both.

    Args:
        table: rows.
        values: column of what is compared, averaged where a place has a group more than once.
        one: the group that is subtracted from.
        other: the group that is subtracted.
        by: column of the groups.
        within: column or columns of the places.
    """
    wide = table.pivot_table(index=within, columns=by, values=values)
    if one not in wide or other not in wide:
        return []
    return [float(value) for value in (wide[one] - wide[other]).dropna()]


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def in_order(values: Iterable[str], order: Mapping[str, str] | Sequence[str]) -> list[str]:
    """The distinct `values` in a known order; those it does not name come last, in the order they were met."""
    distinct = list(dict.fromkeys(values))
    return [name for name in order if name in distinct] + [name for name in distinct if name not in order]
