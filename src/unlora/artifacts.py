"""Files that others rely on: written whole or not at all, safetensors and JSON only."""

import contextlib
import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unlora.errors import InputError, UnloraError


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
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise storage_error(path, error) from None
    except SafetensorError as error:
        raise UnloraError(f"{path}: cannot be written ({error}).") from None
    finally:
        temporary.unlink(missing_ok=True)


def storage_error(path: Path, error: OSError) -> UnloraError:
    """Say in one line why `path` cannot be written; a limit on the size of files (EFBIG) is a full disk too."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UnloraError(f"{path}: no space left on the disk; free some and start the same command again.")
    return UnloraError(f"{path}: cannot be written ({error.strerror or error}).")


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON atomically; a NaN must have been turned into null and counted by the caller."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        InputError: missing, unreadable or not JSON, with the line.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start + 1}).") from None


def parse_json_object(line: str, where: str) -> dict[str, Any]:
    """Parse one JSON object, such as a line of a JSON lines file.

    Raises:
        InputError: naming `where`: not JSON, or not an object.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error.msg}).") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: must be a JSON object.")
    return record


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
    return tensors, json.loads(header["unlora"])


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


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
