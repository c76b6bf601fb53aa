"""What lies in the user's cache, by kind, and its removal: texts of forget sets stay there after a run is removed."""

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unlora.artifacts import read_json, read_json_lines, read_json_object
from unlora.errors import InputError, nearest
from unlora.models.embedded import cache_folder


class CacheKind(NamedTuple):
    """One kind of thing in the cache."""

    what: str
    pattern: str
    """Of its entries, below the cache folder."""


KINDS = {
    "scores": CacheKind("questions, true answers and a model's answers to them", "scores/*"),
    "audit": CacheKind("finished pieces of audits, with answers of the models", "audit/*"),
    "models": CacheKind("the embedded model, converted, and leftovers of conversions", "*smollm2-*"),
    "merged": CacheKind("leftovers of models that were rounded", "merged-*"),
    "small_world": CacheKind("models and sets of the studies' small worlds", "small_world/*"),
}


class Entry(NamedTuple):
    """A file or folder of the cache."""

    kind: str
    path: Path
    size: int
    """Bytes; of a folder, all below it."""
    changed: float
    """Seconds since the epoch."""


class Found(NamedTuple):
    """How much there is of a kind."""

    kind: str
    what: str
    entries: int
    size: int
    oldest_days: float
    newest_days: float


def cache_entries() -> list[Entry]:
    """Everything of a kind that unlora puts into its cache. Links are never followed, and what is not ours is not seen.

    Raises:
        InputError: the cache is a file.
    """
    folder = cache_folder()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; UNLORA_CACHE names a folder.")
    found = []
    for kind, (_, pattern) in KINDS.items():
        *parents, _ = pattern.split("/")
        if parents and (folder / parents[0]).is_symlink():
            continue  # What it leads to is somebody's else.
        for path in sorted(folder.glob(pattern)):
            about = path.lstat()
            found.append(Entry(kind, path, sum(_sizes(path)), about.st_mtime))
    return found


def summarise(entries: Sequence[Entry]) -> list[Found]:
    """Count entries by kind, in the order of `KINDS`; kinds of which there is nothing are left out."""
    now, found = time.time(), []
    for kind, (what, _) in KINDS.items():
        own = [entry for entry in entries if entry.kind == kind]
        if own:
            days = [(now - entry.changed) / 86400 for entry in own]
            found.append(Found(kind, what, len(own), sum(entry.size for entry in own), max(days), min(days)))
    return found


def chosen_entries(kinds: Sequence[str], *, run: Path | None, older_than_days: float | None) -> list[Entry]:
    """The entries that are to be removed.

    Args:
        kinds: names of `KINDS`; none stands for all.
        run: only what was asked about this run's forget set, of whatever model, and what was answered.
        older_than_days: only what was not written since.

    Raises:
        InputError: an unknown kind, or not a run folder.
    """
    for kind in kinds:
        if kind not in KINDS:
            hint = nearest(kind, KINDS) or f" Known: {', '.join(KINDS)}."
            raise InputError(f"'{kind}': no kind of the cache.{hint}")
    chosen = [entry for entry in cache_entries() if not kinds or entry.kind in kinds]
    if older_than_days is not None:
        limit = time.time() - older_than_days * 86400
        chosen = [entry for entry in chosen if entry.changed < limit]
    if run is None:
        return chosen
    questions, forget_sets = _asked_about(run)
    return [entry for entry in chosen if _is_of(entry, questions, forget_sets)]


def remove_entries(entries: Sequence[Entry]) -> int:
    """Remove entries; a link is removed, never what it leads to.

    Returns:
        Bytes that are free.

    Raises:
        OSError: the first that cannot be removed.
    """
    for entry in entries:
        if stat.S_ISDIR(entry.path.lstat().st_mode):
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink()
    return sum(entry.size for entry in entries)


def _sizes(path: Path) -> Iterator[int]:
    about = path.lstat()
    if not stat.S_ISDIR(about.st_mode):
        yield about.st_size
        return
    for place, _, names in os.walk(path):
        yield from ((Path(place) / name).lstat().st_size for name in names)


def _is_of(entry: Entry, questions: set[str], forget_sets: set[str]) -> bool:
    """Whether a file of the cache holds what was asked about, or answered to, a forget set."""
    if entry.kind == "scores":
        with contextlib.suppress(InputError):
            return any(_asked(record) in questions for record in read_json_lines(entry.path))
    elif entry.kind == "audit":
        with contextlib.suppress(InputError, KeyError, TypeError):
            return read_json(entry.path)["identity"]["forget"] in forget_sets
    return False


def _asked(record: Mapping[str, Any]) -> Any:
    """What a line of scores was asked: the hash of a question, or the text of a suite that brings its own."""
    return next((record[key] for key in ("question_sha256", "asked", "text", "question") if key in record), None)


def _asked_about(run: Path) -> tuple[set[str], set[str]]:
    """What a run was asked about its forget set, or by further suites, and the set's hash as its audits took it."""
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: no config.yaml; not a run folder.")
    files = sorted((run / "scores").glob("**/*.jsonl"))
    records = [record for file in files for record in read_json_lines(file) if record.get("set", "forget") == "forget"]
    audits = [read_json_object(file).get("data") for file in sorted(run.glob("*/record.json"))]
    sets = {data.get("forget_sha256") for data in audits if isinstance(data, dict)}
    asked = {str(_asked(record)) for record in records}
    return asked - {"", "None"}, {str(one) for one in sets if one is not None}
