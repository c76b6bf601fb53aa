"""A curve in one line."""

import math

import pytest

from unlora.cli.sparkline import sparkline


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([7.0, 0.0], 8, "█▁"),
        ([2.0, 2.0, 2.0], 8, "▁▁▁"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([0.0, math.nan, 1.0], 3, "▁ █"),
        ([math.nan, math.inf], 3, "  "),
        ([0, math.inf, 8, 8], 2, "▁█"),
        ([], 3, ""),
    ],
)
def test_sparkline(values: list[float], width: int, line: str):
    assert sparkline(values, width) == line


def test_many_values_fill_the_width():
    assert len(sparkline(list(range(101)), 60)) == 60
