"""How the command line shows a recipe at work: finished lines, and one task at a time as a bar or, in a log, lines."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from unlora.characters import visible
from unlora.cli.launch import process_index
from unlora.cli.sparkline import sparkline
from unlora.run.reporter import Task

LINE_SECONDS = 10.0
"""Where standard error is no terminal, a task prints a line at most this often, and one when it ends."""

CURVE_WIDTH = 60
"""Characters of a training curve at most."""

console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


class CurveProgress(Progress):
    """A bar, and under it the curves of its task."""

    curves: Mapping[str, Sequence[float]] = {}

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar, then a line a curve."""
        yield from super().get_renderables()
        if not self.curves:
            return
        width = max(len(name) for name in self.curves)
        room = min(CURVE_WIDTH, max(self.console.width - width - 24, 1))
        for name, values in self.curves.items():
            yield Text(f"  {name:<{width}}  {sparkline(values, room)}  {values[0]:.3g} to {values[-1]:.3g}")


class BarTask:
    """A `Task` drawn as a bar."""

    def __init__(self, progress: CurveProgress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._curves: dict[str, list[float]] = {}

    def advance(self, count: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=count, note=visible(note))

    def update(self, note: str, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total, note=visible(note))

    def plot(self, values: Mapping[str, float]) -> None:
        if not self._progress.console.encoding.startswith("utf"):
            return  # It could not show the bars of a curve.
        for name, value in values.items():
            self._curves.setdefault(visible(name), []).append(value)
        self._progress.curves = self._curves


class LineTask:
    """A `Task` for a log: a line now and then."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._done, self._total, self._note = title, 0, total, ""
        self._start = self._printed = time.monotonic()
        self._line = ""

    def advance(self, count: int = 1, note: str = "") -> None:
        self.update(note, self._done + count, self._total)

    def update(self, note: str, done: int, total: int) -> None:
        self._note, self._done, self._total = note, done, total
        if time.monotonic() - self._printed >= LINE_SECONDS:
            self.print()

    def plot(self, values: Mapping[str, float]) -> None:
        pass

    def print(self) -> None:
        """Print how far it is, unless the last line says so."""
        self._printed = time.monotonic()
        state = f"{self._title} {self._done}/{self._total} {self._note}".rstrip()
        if state != self._line:
            console.print(visible(f"{state} ({self._printed - self._start:.0f} s)"), markup=False)
        self._line = state


class ConsoleReporter:
    """A `Reporter` that writes to standard error; standard output stays for results."""

    def __init__(self) -> None:
        """Of several processes the first one writes; a process forked after the import learns only now which it is."""
        console.quiet = process_index() > 0

    def say(self, text: str) -> None:
        console.print(visible(text), markup=False)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Task]:
        # Not console.is_terminal: FORCE_COLOR, which many CI machines set, makes that true for a file.
        if not sys.stderr.isatty() or console.is_dumb_terminal:
            line = LineTask(title, total)
            yield line
            line.print()
            return
        columns = (
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with CurveProgress(*columns, console=console) as progress:
            yield BarTask(progress, progress.add_task(visible(title), total=total, note=""))
