"""A ledger's folder: its entries, what follows from them, and the adapters that they vouch for."""

import math
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from unlora.artifacts import file_sha256
from unlora.errors import InputError
from unlora.ledger.chain import linked, read_chain, write_chain
from unlora.ledger.entries import (
    Beginning,
    Composition,
    Files,
    LedgerEntry,
    RecordSet,
    Request,
    RollBack,
    Settling,
    read_entry,
)
from unlora.ledger.record_hashes import Forgotten
from unlora.models.origin import find_from
from unlora.runtime import versions

FILE = "ledger.jsonl"
REQUESTS, COMPOSED, EVIDENCE, WORK = "requests", "composed", "evidence", "work"
ADVICE = "wait for it and start the same command again"
"""For whoever finds another process at work in a ledger."""

Kind = TypeVar("Kind", bound=LedgerEntry)


class Ledger:
    """A ledger as it was read; entries are added by whoever holds its lock."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            InputError: not a ledger, or one that was changed since it was written.
        """
        self.path, self.file = path, path / FILE
        if not self.file.is_file():
            raise InputError(
                f"{path}: no {FILE}; not a ledger. Begin one: unlora ledger init {path} --model DIR_OR_ID."
            )
        self._links, fault = read_chain(self.file)
        if fault is not None:
            raise InputError(f"{fault}; `unlora ledger verify {path}` says more.")
        self.entries = [read_entry(link, str(self.file)) for link in self._links]
        if not self.entries or not isinstance(self.entries[0], Beginning):
            raise InputError(f"{self.file}, line 1: does not say which model the ledger is about.")
        self.beginning = self.entries[0]

    def add(self, **content: Any) -> LedgerEntry:
        """Add an entry, given its kind and what that kind has; return it."""
        link = linked(stamped(content), self._links)
        entry = read_entry(link, str(self.file))  # What could not be read again is not written.
        write_chain(self.file, [*self._links, link])
        self._links.append(link)
        self.entries.append(entry)
        return entry

    @property
    def next_number(self) -> int:
        """The number that the next entry gets."""
        return len(self.entries)

    def of_kind(self, kind: type[Kind]) -> list[Kind]:
        """All entries of one kind, in order."""
        return [entry for entry in self.entries if isinstance(entry, kind)]

    @property
    def rolled_back(self) -> dict[int, int]:
        """Request -> the entry that took it back."""
        return {entry.request: entry.entry for entry in self.of_kind(RollBack)}

    @property
    def joined(self) -> dict[int, int]:
        """Request -> the request that took its place."""
        return {number: request.entry for request in self.of_kind(Request) for number in request.joins}

    @property
    def in_force(self) -> list[Request]:
        """Requests that were not taken back, and not joined into another."""
        out = self.rolled_back | self.joined
        return [request for request in self.of_kind(Request) if request.entry not in out]

    def held_by(self, records: RecordSet) -> list[int]:
        """The requests in force whose records are all among these."""
        known = set(records.records)
        return [request.entry for request in self.in_force if known.issuperset(request.forget.records)]

    @property
    def composed(self) -> Composition | None:
        """The adapter of now; None where no request is in force."""
        return self.composed_before(self.next_number)

    def composed_before(self, number: int) -> Composition | None:
        """The adapter before an entry was added."""
        entries = reversed(self.entries[:number])
        return next((entry.composed for entry in entries if isinstance(entry, Request | RollBack | Settling)), None)

    def strength(self, request: int) -> float:
        """What a request's update is multiplied with in the composition: it was settled with others, or was not."""
        return math.prod(one.strength for one in self.of_kind(Settling) if one.entry > request)

    def request(self, number: int) -> Request:
        """A request by its number.

        Raises:
            InputError: there is none.
        """
        known = {request.entry: request for request in self.of_kind(Request)}
        if number not in known:
            named = ", ".join(map(str, known)) or "none yet"
            raise InputError(f"{self.path}: no request {number}; the requests are: {named}.")
        return known[number]

    def forgotten(self) -> Forgotten:
        """The records of the requests in force."""
        return Forgotten(self.beginning.salt, ((request.entry, request.forget) for request in self.in_force))

    def model_settings(self) -> dict[str, Any]:
        """The section `model` of a run on the ledger's model; a path is given from where this process works."""
        model = self.beginning.model
        base = find_from(self.path, model.base) if model.base is not None else None
        return {"name": find_from(self.path, model.name), "base": base, "dtype": model.source["dtype"]}

    def changed_files(self) -> list[str]:
        """What is wrong with the files that the entries vouch for: one line each."""
        files: Files = {name: hash for entry in self.entries for name, hash in entry.own_files().items()}
        if self.composed is not None:
            files |= self.composed.files
        found = ((name, _state(self.path / name, hash)) for name, hash in files.items())
        return [f"{self.path / name}: {state}" for name, state in found if state is not None]

    def refuse_changed(self) -> None:
        """Refuse to build on files that are not those that were written.

        Raises:
            InputError: naming the first.
        """
        changed = self.changed_files()
        if changed:
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise InputError(f"{changed[0]}{more}; put it back from a copy.")

    def unnamed(self) -> list[Path]:
        """Folders that no entry names: of a command that was ended early, or what a later one has replaced."""
        named = {Path(name).parts[:2] for entry in self.entries for name in entry.own_files()}
        if self.composed is not None:
            named.add(Path(self.composed.folder).parts[:2])
        places = [place for part in (REQUESTS, COMPOSED, EVIDENCE) for place in sorted((self.path / part).glob("*"))]
        return [place for place in places if place.relative_to(self.path).parts[:2] not in named]

    def tidy(self) -> None:
        """Remove what commands have left that were ended early, and what has been replaced; nothing of the user's."""
        for place in self.unnamed():
            for own in (place / name for name in ("adapter", "config.yaml", "record.json", "audit.json")):
                shutil.rmtree(own, ignore_errors=True) if own.is_dir() else own.unlink(missing_ok=True)
            if place.name.startswith(".") or place.parent.name != COMPOSED:
                shutil.rmtree(place, ignore_errors=True)
            elif not any(place.iterdir()):
                place.rmdir()
        for left in self.path.glob(f".{FILE}.*"):
            left.unlink(missing_ok=True)


def stamped(content: Mapping[str, Any]) -> dict[str, Any]:
    """Say when an entry was written, and by which version."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {**content, "time": now, "unlora": versions()["unlora"]}


def hashes_below(folder: Path, root: Path) -> Files:
    """Hash every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): file_sha256(path) for path in files}


def named_from(path: Path, model: str) -> str:
    """A model's name as a ledger in `path` writes it: a folder by the way to it, any other as it stands."""
    if not Path(model).exists():
        return model
    way = Path(os.path.relpath(os.path.realpath(model), os.path.realpath(path))).as_posix()
    return way if way.startswith(".") else f"./{way}"


def _state(file: Path, hash: str) -> str | None:
    if not file.is_file():
        return "missing"
    return None if file_sha256(file) == hash else "changed since it was written"
