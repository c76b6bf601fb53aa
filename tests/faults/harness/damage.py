"""Ways to damage a file, the same for every kind of file."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]


def remove(file: Path) -> None:
    shutil.rmtree(file) if file.is_dir() else file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def half(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def last_byte(file: Path) -> None:
    """Lose the last byte that is no white space."""
    file.write_bytes(file.read_bytes().rstrip()[:-1])


def flip(file: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(bytes(content))


def noise(file: Path) -> None:
    file.write_bytes(bytes((place * 73 + 41) % 256 for place in range(1000)))


def zeros(file: Path) -> None:
    file.write_bytes(b"\0" * len(file.read_bytes()))


def into_folder(file: Path) -> None:
    remove(file)
    file.mkdir()


def link_to_nothing(file: Path) -> None:
    remove(file)
    file.symlink_to("nothing-there")


def utf16(file: Path) -> None:
    file.write_bytes(file.read_bytes().decode("utf-8", "replace").encode("utf-16"))


def content(text: str) -> Damage:
    """Put another text in its place."""

    def damage(file: Path) -> None:
        file.write_text(text, encoding="utf-8")

    return damage


ANY_FILE: Mapping[str, Damage] = {
    "missing": remove, "empty": empty, "cut in half": half, "last byte lost": last_byte, "noise": noise,
    "zeros": zeros, "a folder": into_folder, "link to nothing": link_to_nothing,
}  # fmt: skip
JSON_FILE: Mapping[str, Damage] = {
    **ANY_FILE,
    "null": content("null"),
    "list": content("[]"),
    "empty object": content("{}"),
    "number": content("5"),
    "text": content('"x"'),
    "5,000 brackets": content("[" * 5000),
    "UTF-16": utf16,
    "web page": content("<!DOCTYPE html><html><body>404</body></html>"),
    "pointer of git-lfs": content("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n"),
}
WRONG_JSON: Mapping[str, Any] = {
    "null": None, "text": "x", "negative": -1, "nought": 0, "list": [], "object": {}, "true": True,
}  # fmt: skip
"""Values that most keys cannot take."""


def change(file: Path, **values: Any) -> None:
    """Change keys at the top of a JSON object."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def drop(file: Path, *keys: str) -> None:
    """Remove keys from the top of a JSON object."""
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({key: value for key, value in record.items() if key not in keys}), encoding="utf-8")


def copied(source: Path, target: Path) -> Path:
    """A copy of a folder that may be damaged."""
    return Path(shutil.copytree(source, target))
