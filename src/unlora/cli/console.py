"""How the command line shows a recipe at work: finished lines, and one task at a time as a bar or, in a log, lines."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from unlora.characters import visible
from unlora.cli.launch import process_index
from unlora.run.reporter import Task

LINE_SECONDS = 10.0
"""Where standard error is no terminal, a task prints a line at most this often, and one when it ends."""

console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False, quiet=process_index() > 0)


class BarTask:
    """A `Task` drawn as a bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, count: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=count, note=visible(note))

    def update(self, note: str, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total, note=visible(note))


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

    def print(self) -> None:
        """Print how far it is, unless the last line says so."""
        self._printed = time.monotonic()
        state = f"{self._title} {self._done}/{self._total} {self._note}".rstrip()
        if state != self._line:
            console.print(visible(f"{state} ({self._printed - self._start:.0f} s)"), markup=False)
        self._line = state


class ConsoleReporter:
    """A `Reporter` that writes to standard error; standard output stays for results."""

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
        with Progress(*columns, console=console) as progress:
            yield BarTask(progress, progress.add_task(visible(title), total=total, note=""))
