"""Files of JSON objects that are not user data: one object a line, each with its place for messages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unlora.artifacts import parse_json_object
from unlora.errors import InputError
from unlora.regular_files import refuse_irregular


def read_data_text(path: Path) -> str:
    """Read a text file in UTF-8, without its byte order mark.

    Raises:
        InputError: missing, a folder, not readable, or not UTF-8.
    """
    refuse_irregular(path)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; give a file.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start + 1}).") from None


def parse_json_lines(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, object) for every line; `name` is the file's.

    Raises:
        InputError: a line that is empty or not a JSON object, with its number.
    """
    # Split on the newline alone: JSON strings may hold the other characters that str.splitlines() splits on.
    for number, line in enumerate(text.rstrip().split("\n"), start=1):
        where = f"{name}, line {number}"
        if not line.strip():
            raise InputError(f"{where}: the line is empty; remove it.")
        yield where, parse_json_object(line, where)
