"""Files that others rely on: written whole or not at all, safetensors and JSON only."""

import contextlib
import hashlib
import json
import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unlora.errors import NO_SPACE, InputError, UnloraError
from unlora.places import broken_link, link_out, modes
from unlora.regular_files import refuse_irregular
from unlora.strict_json import parse_json


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on failure nothing is left behind.

    Raises:
        UnloraError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise storage_error(path, error) from None
    temporary = Path(name)
    try:
        yield temporary
        flush(temporary)
        temporary.chmod(modes().file)
        temporary.replace(path)
    except OSError as error:
        raise storage_error(path, error) from None
    except SafetensorError as error:
        raise storage_error(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk, so that they outlast a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_unwritable(folder: Path, *, called: str = "--output") -> None:
    """Refuse a folder in which, or for one to be made above which, nothing can be written; no trace is left.

    Args:
        folder: or the file that is to be made.
        called: what the user gave it as.

    Raises:
        InputError: naming the place and what the system says.
        UnloraError: the disk is full.
    """
    link = broken_link(folder)
    if link is not None:
        raise InputError(f"{folder}: {link} is a link that leads nowhere; choose another {called}.")
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            return
    except OSError as error:
        if error.errno in NO_SPACE:
            raise storage_error(folder, error) from None
        where = "" if place == folder else f" in {place}"
        reason = error.strerror or error
        raise InputError(f"{folder}: cannot be written{where} ({reason}); choose another {called}.") from None


def refuse_links_out(folder: Path) -> None:
    """Refuse a folder in which a link leads to a folder elsewhere: what is written there must stay there.

    Raises:
        InputError: naming the link.
    """
    link = link_out(folder)
    if link is not None:
        raise InputError(
            f"{link}: a link that leads out of {folder} to {os.path.realpath(link)}, and this command writes below "
            "it; remove it or choose another --output."
        )


def storage_error(path: Path, error: OSError | SafetensorError) -> UnloraError:
    """Say in one line why `path` cannot be written; safetensors has the system's reason in its text."""
    number = getattr(error, "errno", None) or _number_in(str(error))
    if number in NO_SPACE:
        return UnloraError(f"{path}: no space left on the disk; free some and start the same command again.")
    return UnloraError(f"{path}: cannot be written ({os.strerror(number) if number else error}).")


def _number_in(text: str) -> int | None:
    found = re.search(r"os error (\d+)", text)
    return int(found[1]) if found else None


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON atomically; a NaN must have been turned into null and counted by the caller."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, finite: bool = True) -> Any:
    """Read JSON; without `finite`, also the NaN and infinities of other programs.

    Raises:
        InputError: missing, unreadable or not JSON, with the line.
    """
    return parse_json(read_text(path), str(path), with_line=True, finite=finite)


def read_text(path: Path) -> str:
    """Read UTF-8 text.

    Raises:
        InputError: missing, unreadable or not UTF-8.
    """
    try:
        refuse_irregular(path)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start + 1}).") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: missing, unreadable, not JSON, or something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: must be a JSON object.")
    return value


def parse_json_object(line: str, where: str) -> dict[str, Any]:
    """Parse one JSON object, such as a line of a JSON lines file.

    Raises:
        InputError: naming `where`: not JSON, or not an object.
    """
    record = parse_json(line, where)
    if not isinstance(record, dict):
        raise InputError(f"{where}: must be a JSON object.")
    return record


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON objects, one a line.

    Raises:
        InputError: missing, not UTF-8, or a line that is something else, with its number.
    """
    # Not splitlines, which also cuts at characters that JSON strings may hold.
    lines = read_text(path).removesuffix("\n").split("\n")
    return [parse_json_object(line, f"{path}, line {place}") for place, line in enumerate(lines, start=1)]


def refuse_missing_lines(path: Path, counts: Any, records: Sequence[Mapping[str, Any]], key: str) -> None:
    """Refuse a file that was cut at the end of a line.

    Args:
        path: of the file.
        counts: what its header says was written: how many records have which value under `key`.
        records: what it holds.
        key: by which they are counted.

    Raises:
        InputError: with both numbers.
    """
    found = Counter(str(record.get(key)) for record in records)
    if not isinstance(counts, dict) or not found.keys() <= counts.keys():
        raise InputError(f"{path}, line 1: does not count what follows.")
    for name, count in counts.items():
        if found[name] != count:
            raise InputError(f"{path}: holds {found[name]} of {count} lines of {key} '{name}'.")


def nan_to_null(value: Any) -> Any:
    """Turn NaN and infinities into None, and tuples into lists, all the way down: strict JSON has no other way."""
    if isinstance(value, Mapping):
        return {key: nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def null_to_nan(value: Any) -> Any:
    """Turn None back into NaN, all the way down."""
    if isinstance(value, dict):
        return {key: null_to_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [null_to_nan(item) for item in value]
    return math.nan if value is None else value


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors atomically as safetensors; `metadata` goes into the header as one JSON text under "unlora"."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(contiguous, temporary, metadata={"unlora": json.dumps(dict(metadata), allow_nan=False)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        InputError: missing, truncated, not safetensors, or without our header.
    """
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder; give a file' if path.is_dir() else 'no such file'}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a complete safetensors file ({error}).") from None
    if "unlora" not in header:
        raise InputError(f"{path}: a safetensors file, but not one that unlora wrote.")
    return tensors, parse_json_object(header["unlora"], f"{path}, header")


def refuse_cut_tensors(folder: Path) -> None:
    """Refuse a folder in which a safetensors file was cut short; only what each says of its length is read.

    Raises:
        InputError: naming the file.
    """
    for file in sorted(folder.glob("*.safetensors")):
        error = tensors_error(file)
        if error is not None:
            raise InputError(f"{file}: not a complete safetensors file ({error}); copy it here again.")


def tensors_error(file: Path) -> Exception | None:
    """What is wrong with a safetensors file, by its header and its length alone; None for a whole one."""
    try:
        with safe_open(file, framework="pt"):
            return None
    except (SafetensorError, OSError) as error:
        return error


START_AGAIN = "remove it and start again"
"""What to do about a damaged file that the same command makes anew."""


@contextlib.contextmanager
def advised(advice: str) -> Iterator[None]:
    """Add to what is wrong with a file what to do about it.

    Raises:
        InputError: the one raised within, ending in `advice`.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{str(error).removesuffix('.')}; {advice}.") from None


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(value: Any) -> str:
    """Hash of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
