"""Training curves as the coordinates of an inline SVG: no plotting library, no script."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 58.0, 448.0, 34.0, 206.0
"""Of the frame, in the SVG's own units."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    position: float
    label: str


@dataclass(frozen=True)
class PlottedCurve:
    """One named line; a value that is not a number breaks it into pieces."""

    label: str
    pieces: tuple[str, ...]
    """Each "x,y x,y ...", as `polyline` takes it."""
    lone_points: tuple[tuple[float, float], ...]
    """Points with no neighbour, which a line would not show."""


@dataclass(frozen=True)
class Chart:
    """Curves on common axes."""

    title: str
    curves: tuple[PlottedCurve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    zero: float | None
    """Height of the value 0, where it lies inside the frame."""


def training_charts(log: Sequence[Mapping[str, Any]], *, has_retain_term: bool) -> list[Chart]:
    """Draw the training log: the retain term has its own axis, because it is often a hundred times smaller."""
    charts = [_chart("Loss and forget term", log, {"loss": "loss", "forget_term": "forget term"})]
    if has_retain_term:
        charts.append(_chart("Retain term", log, {"retain_term": "retain term"}))
    return [chart for chart in charts if chart is not None]


def attack_charts(curves: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Draw the curves of an attack, one chart a panel."""
    charts: list[Chart | None] = []
    for panel in dict.fromkeys(curve["panel"] for curve in curves):
        shown = [curve for curve in curves if curve["panel"] == panel]
        steps = sorted({step for curve in shown for step in curve["x"]})
        values = [dict(zip(curve["x"], curve["y"], strict=True)) for curve in shown]
        log = [{"step": step, **{str(place): line.get(step) for place, line in enumerate(values)}} for step in steps]
        charts.append(
            _chart(panel, log, {str(place): curve["label"].replace("_", "-") for place, curve in enumerate(shown)})
        )
    return [chart for chart in charts if chart is not None]


def run_chart(title: str, runs: Sequence[Sequence[tuple[int | float, Any]]]) -> Chart | None:
    """Draw one curve a run, in the order of the runs; None where there is nothing to draw."""
    steps = sorted({step for points in runs for step, _ in points})
    values = [dict(points) for points in runs]
    log = [
        {"step": step, **{str(place): one[step] for place, one in enumerate(values) if step in one}} for step in steps
    ]
    # A run that was not measured at a step of another has no gap there.
    return _chart(title, log, {str(place): "" for place in range(len(runs))}, gaps=False)


def _chart(
    title: str, log: Sequence[Mapping[str, Any]], labels: Mapping[str, str], *, gaps: bool = True
) -> Chart | None:
    series = {key: [(line["step"], _finite(line.get(key))) for line in log if gaps or key in line] for key in labels}
    drawn = [(step, value) for points in series.values() for step, value in points if value is not None]
    if not drawn:
        return None
    steps = _Axis([step for step, _ in drawn], start=LEFT, end=RIGHT, whole=True)
    values = _Axis([value for _, value in drawn], start=BOTTOM, end=TOP)
    return Chart(
        title=title,
        curves=tuple(_curve(labels[key], points, steps, values) for key, points in series.items()),
        x_ticks=steps.ticks(),
        y_ticks=values.ticks(),
        zero=values.position(0.0) if values.low < 0 < values.high else None,
    )


def _curve(
    label: str, points: Sequence[tuple[int | float, float | None]], steps: "_Axis", values: "_Axis"
) -> PlottedCurve:
    pieces: list[list[tuple[float, float]]] = [[]]
    for step, value in points:
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append((steps.position(step), values.position(value)))
    lines = tuple(" ".join(f"{x:.1f},{y:.1f}" for x, y in piece) for piece in pieces if len(piece) > 1)
    return PlottedCurve(label, lines, tuple(piece[0] for piece in pieces if len(piece) == 1))


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


class _Axis:
    """A linear axis from `low` to `high`, both multiples of a round step, drawn from `start` to `end`."""

    def __init__(self, values: Sequence[int | float], *, start: float, end: float, whole: bool = False) -> None:
        low, high = min(values), max(values)
        if low == high:
            low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        self._tick = _round_step((high - low) / 5)
        if whole:  # Steps are counted: ticks at whole numbers, and the axis ends where the run does.
            self._tick = max(1.0, self._tick)
            self.low, self.high = float(low), float(high)
        else:
            self.low, self.high = (math.floor(low / self._tick) * self._tick, math.ceil(high / self._tick) * self._tick)
        self._start, self._end = start, end

    def position(self, value: int | float) -> float:
        """Where a value lies in the SVG."""
        share = (value - self.low) / (self.high - self.low)
        return round(self._start + share * (self._end - self._start), 1)

    def ticks(self) -> tuple[Tick, ...]:
        """Marks at round values inside the axis."""
        first = math.ceil(self.low / self._tick - 1e-9)
        last = math.floor(self.high / self._tick + 1e-9)
        values = [number * self._tick for number in range(first, last + 1)]
        return tuple(Tick(self.position(value), f"{value:.6g}") for value in values)


def _round_step(size: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= size * (1 - 1e-9))
