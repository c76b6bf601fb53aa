"""What a recipe says while it works. The command line draws it; a library user gets silence."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Task(Protocol):
    """A piece of work of known size."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done; `note` is a short text beside the bar."""
        ...

    def update(self, note: str, done: int, total: int) -> None:
        """`done` of `total` units of the part called `note` are done."""
        ...

    def plot(self, values: Mapping[str, float]) -> None:
        """The next point of each named curve, for whoever can draw them."""
        ...


@runtime_checkable
class Reporter(Protocol):
    """Where a recipe's words and progress go."""

    def say(self, text: str) -> None:
        """One finished line."""
        ...

    def task(self, title: str, total: int) -> AbstractContextManager[Task]:
        """Show progress until the block ends."""
        ...


class _SilentTask:
    def advance(self, count: int = 1, note: str = "") -> None:
        pass

    def update(self, note: str, done: int, total: int) -> None:
        pass

    def plot(self, values: Mapping[str, float]) -> None:
        pass


class SilentReporter:
    """Says nothing."""

    def say(self, text: str) -> None:
        pass

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Task]:
        yield _SilentTask()


SILENT = SilentReporter()
