"""How the command line shows a recipe at work: finished lines, and one progress bar at a time."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

PLAIN_INTERVAL = 10
"""Without a terminal, a progress line is printed every this many seconds."""

console = Console(file=sys.stderr, highlight=False, soft_wrap=True)


class BarTask:
    """A `Task` drawn as a bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, count: int = 1, note: str = "") -> None:
        self._progress.update(self._task, advance=count, note=note)

    def update(self, note: str, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total, note=note)


class ConsoleReporter:
    """A `Reporter` that writes to standard error; standard output stays for results."""

    def say(self, text: str) -> None:
        console.print(text, markup=False)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[BarTask]:
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=console) as progress:
            yield BarTask(progress, progress.add_task(title, total=total, note=""))
