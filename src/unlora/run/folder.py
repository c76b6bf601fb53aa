"""The folder of one run: what is in it, whether it may be used, and the record that grows with every stage."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from unlora import processes
from unlora.artifacts import (
    advised,
    file_sha256,
    read_json_object,
    refuse_links_out,
    refuse_unwritable,
    storage_error,
    write_json,
    write_text,
)
from unlora.config import Config, read_yaml
from unlora.errors import STORAGE_ERRORS, InputError, UnloraError
from unlora.locks import entries
from unlora.models.fingerprint import adapter_sha256
from unlora.report.shapes import RecordFile, refuse_unless
from unlora.runtime import Stopwatch, versions

TORCH_WRITER = ("inline_container.cc", "iostream error")
"""What torch.save says when a write fails; it keeps the operating system's reason to itself."""

MADE_OF_THE_ADAPTER = (
    "evaluation.json",
    "report.html",
    "open_unlearning",
    "scores/unlearned.jsonl",
    "scores/*/unlearned.jsonl",
    "scores/earlier.jsonl",
    "audit/audit.json",
    "audit/audit.html",
)
"""What says something about the adapter in the folder, and would say it about the next one."""


FILES = (
    "config.yaml", "record.json", "importance.safetensors", "train_log.jsonl", "evaluation.json", "report.html",
    "audit.json", "audit.html",
)  # fmt: skip
"""What is written at the top of a run folder."""


class RunFolder:
    """Paths of a run and its record.json.

    The record is rewritten after every stage, so a run that was killed keeps what its finished stages cost. Of several
    processes all read, and the main one alone writes.
    """

    def __init__(self, path: Path, settings: Config, *, results: Sequence[str] = ("adapter",)) -> None:
        """Open a new folder or one that holds the same run; nothing is written yet.

        Args:
            path: of the folder.
            settings: of the run.
            results: files and folders that a finished run has; without one of them it is to be finished again.

        Raises:
            InputError: the folder holds something else or cannot be written, or a finished part of the run is damaged.
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
        self._results = results
        self._begun = False
        self._refuse_other_run()
        refuse_links_out(path)
        self.record: dict[str, Any] = {"finished": False, "versions": versions(), "stages": {}, "checks": {}}
        self._read_record()
        self._refuse_damaged_adapter()
        refuse_unwritable(path)

    def _refuse_other_run(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is a file; --output names a folder.")
        for file in (self.path / name for name in FILES):
            if file.is_dir():  # Found out only when it is written, it would cost the work before.
                raise InputError(f"{file}: is a folder, and a file goes there; remove it or choose another --output.")
        if not self.path.is_dir() or all(entry in self._leftovers() for entry in entries(self.path)):
            return
        if not self.config.is_file():
            raise InputError(f"{self.path}: not empty and not a run of unlora; choose another --output.")
        with advised(self._start_over):
            settings = read_yaml(self.config)
        if self._with_defaults(settings) != self._settings.model_dump(mode="json"):
            raise InputError(
                f"{self.path}: holds another run (its config.yaml differs); choose another --output or remove it."
            )

    def _with_defaults(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Fill in what an older version had no setting for; what cannot be read is another run's as it stands."""
        try:
            return self._settings.from_mapping(settings, where=str(self.config)).model_dump(mode="json")
        except InputError:
            return settings

    @property
    def _start_over(self) -> str:
        """What to do when a file is damaged that cannot be made again."""
        return f"put it back, remove {self.path} or choose another --output"

    def _read_record(self) -> None:
        if not self.record_file.is_file():
            made = (self.importance, self.checkpoints, self.adapter, self.scores, self.evaluation)
            if any(path.exists() for path in made):
                raise InputError(
                    f"{self.record_file}: missing, and it says what the run is made of; {self._start_over}."
                )
            return
        with advised(self._start_over):
            record = self.record | read_json_object(self.record_file)
            if not all(isinstance(record[key], type(value)) for key, value in self.record.items()):
                raise InputError(f"{self.record_file}: not a run's record as unlora writes it.")
            refuse_unless(RecordFile, record, self.record_file, "a run's record")
        self.record = record

    def _refuse_damaged_adapter(self) -> None:
        if self.record.get("adapter_sha256") is not None and self.adapter.is_dir():
            refuse_exchanged_adapter(self.adapter, self.record)

    def _leftovers(self) -> list[Path]:
        """Temporary files and folders of a process that was killed while it wrote."""
        patterns = [f".{name}.*" for name in (*FILES, self.adapter.name)] + [
            "scores/.*",
            "scores/*/.*",
            "records/.*",
            "open_unlearning/*/.*",
        ]
        return [left for pattern in patterns for left in self.path.glob(pattern)]

    @property
    def finished(self) -> bool:
        """Whether an earlier call went through to the end, and what it made is still there."""
        return self.record["finished"] and all((self.path / name).exists() for name in self._results)

    def start(self, **made_of: Any) -> None:
        """Create the folder, write the resolved configuration, and record what the run is made of.

        Args:
            made_of: hashes of the model and the data: a run can be resumed only with the same.

        Raises:
            InputError: the run was started with something else, or by a version that hashed otherwise.
        """
        for key, value in made_of.items():
            self._refuse_other(key, value)
        if not self.finished:
            self.record.pop("evaluation_sha256", None)
        processes.wait()  # until all have found the folder as it was
        processes.on_main(self._make)
        self.write_record(**made_of, **({} if self.finished else {"finished": False, "versions": versions()}))

    def _refuse_other(self, key: str, value: Any) -> None:
        before = self.record.get(key, value)
        if _said(before) == _said(value):
            return
        wrote, now = self.record["versions"].get("unlora"), versions()["unlora"]
        grown = isinstance(before, Mapping) and before.keys() < value.keys()
        if wrote != now or grown:
            raise InputError(
                f"{self.path}: this run was started by an earlier version of unlora ({wrote or 'it does not say which'}"
                f"), which hashed in another way, so that nobody can tell whether the {key} is still the same; finish "
                "it with that version or choose another --output."
            )
        raise InputError(
            f"{self.path}: this run was started with another {key} (other hashes in its record.json); "
            "choose another --output."
        )

    def _make(self) -> None:
        for left in self._leftovers():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._begun = not self.config.is_file()
        if self._begun:
            write_text(self.config, self._settings.to_yaml())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and write it into the record once it is done.

        Raises:
            UnloraError: the stage could not write its files.
        """
        stopwatch = Stopwatch()
        try:
            with stopwatch.stage(name), storage_failures(self.path):
                yield
        except InputError:
            if processes.count() == 1:
                self._give_up()
            raise
        self.record["stages"].update(stopwatch.stages)
        self.write_record()

    def _give_up(self) -> None:
        """Leave no folder of a run that was refused before it made anything: it would refuse the corrected command."""
        if self._begun and {path.name for path in entries(self.path)} <= {self.config.name, self.record_file.name}:
            shutil.rmtree(self.path)

    def discard_results(self) -> None:
        """Remove what was found out about an adapter that is to be trained again, and its hash from the record."""
        if self.record.pop("adapter_sha256", None) is not None:
            self.write_record(finished=False)
        processes.on_main(self._remove_results)

    def _remove_results(self) -> None:
        for place in [found for name in MADE_OF_THE_ADAPTER for found in self.path.glob(name)]:
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink()

    def write_record(self, **entries: Any) -> None:
        """Add entries and write the record."""
        self.record.update(entries)
        if processes.is_main():
            write_json(self.record_file, self.record)

    def finish(self) -> None:
        """Remove the checkpoints, which are needed only to resume, seal what was measured, and mark the run as done."""
        if processes.is_main():
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            if self.evaluation.is_file():
                self.record["evaluation_sha256"] = file_sha256(self.evaluation)
        self.write_record(finished=True)


def _said(value: Any) -> Any:
    """A section of a record without what it says nothing about: a later version has more keys."""
    return {key: one for key, one in value.items() if one is not None} if isinstance(value, Mapping) else value


def refuse_exchanged_adapter(adapter: Path, record: Mapping[str, Any]) -> None:
    """Refuse an adapter that is not the one the run wrote: it was damaged, or another was put in its place.

    Args:
        adapter: its folder.
        record: of the run.

    Raises:
        InputError: another hash than the record's, or none there.
    """
    written, weights = record.get("adapter_sha256"), adapter / "adapter_model.safetensors"
    with advised(f"remove {adapter} to train again"):
        # Older versions recorded the tensors alone.
        if written not in (adapter_sha256(adapter), file_sha256(weights)):
            raise InputError(
                f"{weights}: damaged or exchanged since it was written, or the adapter_config.json beside it was "
                "(not the hash in record.json)."
            )


@contextmanager
def storage_failures(path: Path) -> Iterator[None]:
    """Turn what Python, safetensors and torch raise when they cannot write below `path` into one line.

    Raises:
        UnloraError: in place of them; every other error passes.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        raise storage_error(path, error) from None
    except (SafetensorError, RuntimeError) as error:
        text = str(error)
        if not text.startswith("Error while serializing") and not any(part in text for part in TORCH_WRITER):
            raise
        raise UnloraError(
            f"{path}: a file cannot be written, most likely because no space is left on the disk; "
            "free some and start the same command again."
        ) from None
