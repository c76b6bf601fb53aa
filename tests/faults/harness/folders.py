"""What two folders that were made by the same command must have in common, and what may differ from start to start."""

import csv
import json
import re
from pathlib import Path
from typing import Any

from tests.faults.harness.areas.runs import strip
from unlora.artifacts import file_sha256

TIMES = (
    "seconds",
    "stages",
    "peak_memory_bytes",
    "seconds_of_cells",
    "seconds_of_last_start",
    "command",
    "made_of_seconds",
)
OWN_CACHE = re.compile(r"[^\s\"]*/cache/(?=small_world/)")
"""Each process of the harness has its own, which stands in paths."""
SAME_BYTES = (".safetensors",)
LOGS = ("train_log.jsonl",)


def difference(found: Path, right: Path) -> str | None:
    """What is missing, left over or another one in `found`; None where the two are the same.

    Tensors and scores are compared byte by byte; JSON and tables without times and without the names of the folders.
    """
    names = [files(folder) for folder in (found, right)]
    if names[0] != names[1]:
        return f"files {sorted(names[0] ^ names[1])[:4]} are left over or missing"
    for name in sorted(names[0]):
        ours, theirs = (content(folder / name, folder) for folder in (found, right))
        if ours != theirs:
            return f"{name} is another one{first_difference(ours, theirs)}"
    return None


def first_difference(ours: Any, theirs: Any, where: str = "") -> str:
    """Where two JSON values differ first."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        key = next(key for key in ours if ours[key] != theirs[key])
        return first_difference(ours[key], theirs[key], f"{where}.{key}")
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        place = next(place for place, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        return first_difference(ours[place], theirs[place], f"{where}[{place}]")
    return f": {where} is {str(ours)[:80]}, {str(theirs)[:80]} is right"


def files(folder: Path) -> set[str]:
    """Every file but a lock that nobody holds."""
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    return {name for name in found if not name.endswith(".lock")}


def content(file: Path, folder: Path) -> Any:
    """What must be the same."""
    if file.name in LOGS:
        return [strip(json.loads(line), TIMES) for line in file.read_text().splitlines()]
    if file.name == "record.json":
        return strip(_own_evaluation(json.loads(OWN_CACHE.sub("", text(file, folder))), file.parent), TIMES)
    if file.suffix == ".json":
        return strip(json.loads(OWN_CACHE.sub("", text(file, folder))), TIMES)
    if file.name == "ledger.jsonl":
        return [_entry(json.loads(line)) for line in file.read_text().splitlines()]
    if file.suffix == ".jsonl":
        return OWN_CACHE.sub("", text(file, folder))
    if file.suffix == ".csv":
        rows = list(csv.DictReader(file.read_text().splitlines()))
        return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]
    return file.read_bytes() if file.suffix in SAME_BYTES else None


def text(file: Path, folder: Path) -> str:
    """A file without the name of where the folder lies."""
    return file.read_text().replace(str(folder.parent), "")


def _entry(link: Any) -> Any:
    """An entry of a ledger without its times and hashes of what holds times; `verify` knows whether those are right."""
    if not isinstance(link, dict):
        return link
    kept = {key: _entry(value) for key, value in link.items() if key not in ("time", "hash", "previous")}
    return kept | ({"files": sorted(kept["files"])} if "files" in kept else {})


def _own_evaluation(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Whether the hash is that of the evaluation beside it, in its place: names of folders stand in what is hashed."""
    hashed = record.get("evaluation_sha256")
    if hashed is None:
        return record
    return {**record, "evaluation_sha256": hashed == file_sha256(folder / "evaluation.json")}
