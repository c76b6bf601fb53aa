"""The folder of one run: what is in it, whether it may be used, and the record that grows with every stage."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from unlora.artifacts import read_json, write_json, write_text
from unlora.config import Config
from unlora.errors import InputError
from unlora.runtime import Stopwatch, versions


class RunFolder:
    """Paths of a run and its record.json.

    The record is rewritten after every stage, so a run that was killed keeps what its finished stages cost.
    """

    def __init__(self, path: Path, settings: Config) -> None:
        """Open a new folder or one that holds the same run; nothing is written yet.

        Raises:
            InputError: the folder holds something else.
        """
        self.path = path
        self.config = path / "config.yaml"
        self.importance = path / "importance.safetensors"
        self.adapter = path / "adapter"
        self.checkpoints = path / "checkpoints"
        self.train_log = path / "train_log.jsonl"
        self.scores = path / "scores"
        self.evaluation = path / "evaluation.json"
        self.record_file = path / "record.json"
        self._settings = settings
        self._refuse_other_run()
        self.record: dict[str, Any] = {"finished": False, "versions": versions(), "stages": {}, "checks": {}}
        if self.record_file.is_file():
            self.record = {**read_json(self.record_file), "versions": versions(), "finished": False}

    def _refuse_other_run(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is a file; --output names a folder.")
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return
        if not self.config.is_file():
            raise InputError(f"{self.path}: not empty and not a run of unlora; choose another --output.")
        if yaml.safe_load(self.config.read_text(encoding="utf-8")) != self._settings.model_dump(mode="json"):
            raise InputError(
                f"{self.path}: holds another run (its config.yaml differs); choose another --output or remove it."
            )

    def start(self) -> None:
        """Create the folder and write the resolved configuration."""
        if not self.config.is_file():
            write_text(self.config, self._settings.to_yaml())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and write it into the record once it is done."""
        stopwatch = Stopwatch()
        with stopwatch.stage(name):
            yield
        self.record["stages"].update(stopwatch.stages)
        self.write_record()

    def write_record(self, **entries: Any) -> None:
        """Add entries and write the record."""
        self.record.update(entries)
        write_json(self.record_file, self.record)

    def finish(self) -> None:
        """Mark the run as done; the checkpoints, needed only to resume, are removed."""
        self.write_record(finished=True)
        shutil.rmtree(self.checkpoints, ignore_errors=True)
