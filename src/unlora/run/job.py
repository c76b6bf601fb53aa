"""One job at work: its folder and record, who listens, and the seed. Stages take this, and beside it what is theirs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from unlora.config import Config
from unlora.run.folder import RunFolder
from unlora.run.reporter import SILENT, Reporter, Task


class Run(RunFolder):
    """A run folder while somebody works on it."""

    def __init__(
        self,
        path: Path,
        settings: Config,
        *,
        results: Sequence[str] = ("adapter",),
        reporter: Reporter = SILENT,
        seed: int = 0,
    ) -> None:
        """Open the folder, as `RunFolder` does.

        Args:
            path: of the folder.
            settings: of the run.
            results: files and folders that a finished run has.
            reporter: where words and progress go.
            seed: of whatever a stage draws.

        Raises:
            InputError: the folder holds something else or cannot be written, or a finished part of the run is damaged.
        """
        super().__init__(path, settings, results=results)
        self.reporter, self.seed = reporter, seed

    def say(self, text: str) -> None:
        """One finished line for whoever listens."""
        self.reporter.say(text)

    def task(self, title: str, total: int) -> AbstractContextManager[Task]:
        """Show progress until the block ends."""
        return self.reporter.task(title, total)
