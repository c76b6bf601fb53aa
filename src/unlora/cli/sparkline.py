"""A curve in one line of text."""

import math
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw values from the lowest to the highest among them; more than `width` are averaged in groups.

    A value that is not finite leaves a gap; where all are the same the line is low.
    """
    groups = [values[len(values) * place // width : len(values) * (place + 1) // width] for place in range(width)]
    shown = [_mean(group) for group in groups if group] if len(values) > width else [_mean([one]) for one in values]
    finite = [value for value in shown if value is not None]
    if not finite:
        return " " * len(shown)
    low, reach = min(finite), max(finite) - min(finite)
    heights = [None if value is None else (value - low) / reach if reach > 0 else 0.0 for value in shown]
    return "".join(" " if height is None else BARS[round(height * (len(BARS) - 1))] for height in heights)


def _mean(group: Sequence[float]) -> float | None:
    finite = [value for value in group if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None
