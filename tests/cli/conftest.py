"""A tiny model and two files of records, made once."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.commands import FORGET, RETAIN, write_lines
from tests.tiny import save_tiny


class Inputs(NamedTuple):
    """What a user has."""

    model: Path
    forget: Path
    retain: Path

    @property
    def options(self) -> tuple[object, ...]:
        """The three options that every run needs."""
        return ("--model", self.model, "--forget", self.forget, "--retain", self.retain)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A tiny llama, two records to forget, three to retain. Read only."""
    folder = tmp_path_factory.mktemp("inputs")
    return Inputs(
        save_tiny(folder / "model"),
        write_lines(folder / "forget.jsonl", FORGET),
        write_lines(folder / "retain.jsonl", RETAIN),
    )
