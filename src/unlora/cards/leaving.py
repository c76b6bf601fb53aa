"""What leaves the machine with a folder: its files, which of them may hold texts of records, and whose machine they
name.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from unlora.data.records import Example, ExampleSet
from unlora.data.same import same_examples
from unlora.errors import InputError

WITHOUT_TEXTS = (
    "README.md", ".gitattributes", "LICENSE*", "NOTICE*", "*.safetensors", "*.safetensors.index.json", "*.gguf",
    "config.json", "generation_config.json", "adapter_config.json", "unlora.json", "tokenizer.json", "tokenizer.model",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "*.jinja", "preprocessor_config.json", "processor_config.json", "*.py",
)  # fmt: skip
"""Names of the files that a model or an adapter is made of; any other may hold anything."""
SETTINGS = (".json", ".md", ".jinja", ".py")
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Of the settings, those of single words, which say nothing of a record."""
LONGEST = 2_000_000
"""Bytes of a file that is looked through: what people write is shorter."""


class Leaving(NamedTuple):
    """One file."""

    name: str
    """Below the folder."""
    size: int
    """Bytes."""


def files_of(folder: Path) -> list[Leaving]:
    """Every file below a folder, but for what git and the hub's own client keep there.

    Raises:
        InputError: not a folder, one without files, or one with a link that leads out of it or nowhere.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give a run, or a folder that unlora export wrote.")
    below = sorted(folder.rglob("*"))
    for path in below:
        if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(folder.resolve())):
            raise InputError(
                f"{path}: is a link out of {folder}, to {os.path.realpath(path)}, and what is there would be sent "
                "under its name; put the file itself in its place, or remove it."
            )
    paths = [path for path in below if path.is_file()]
    found = [Leaving(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]
    found = [one for one in found if not one.name.startswith((".git/", ".cache/", ".unlora-"))]
    if not found:
        raise InputError(f"{folder}: holds no files.")
    return found


def refuse_texts(folder: Path, files: Sequence[Leaving], forget: ExampleSet | None) -> None:
    """Refuse a folder with a file that is no part of a model or an adapter, or with a record of the forget set in it.

    Args:
        folder: that is to leave.
        files: in it.
        forget: the records that must not leave; None where they are not at hand.

    Raises:
        InputError: naming the first such file.
    """
    for file in files:
        if not any(fnmatch(Path(file.name).name, pattern) for pattern in WITHOUT_TEXTS):
            raise InputError(
                f"{folder / file.name}: is no part of a model or an adapter and may hold texts of records; take it "
                "out, or send it too with --with-texts."
            )
        if forget is not None and _is_read(file):
            texts = [Example("text", "", text, file.name) for text in _texts_in(folder / file.name)]
            if any(place is not None for place in same_examples(forget.examples, texts)):
                raise InputError(
                    f"{folder / file.name}: holds a record that was to be forgotten; take it out, or send it too with "
                    "--with-texts."
                )


def _is_read(file: Leaving) -> bool:
    name = Path(file.name)
    return name.suffix in SETTINGS and name.name not in VOCABULARIES and file.size <= LONGEST


def _texts_in(file: Path) -> list[str]:
    """What a file says: all of it, or each text in one of JSON, where letters may be written as numbers."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".json":
        with contextlib.suppress(ValueError, RecursionError):
            return list(_strings(json.loads(text)))
    return [text]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _strings(one)


def refuse_whose_machine(folder: Path, files: Sequence[Leaving]) -> None:
    """Refuse a file that names the home folder, or an adapter whose base is named by an absolute path.

    Raises:
        InputError: naming the file, and how to write it anew.
    """
    home = str(Path.home()).rstrip("/")
    for file in files:
        if Path(file.name).suffix not in SETTINGS or file.size > LONGEST:
            continue
        text = (folder / file.name).read_text(encoding="utf-8", errors="replace")
        named = home if home and f"{home}/" in text else _absolute_base(file, text)
        if named is not None:
            raise InputError(
                f"{folder / file.name}: names {named}, which says whose machine it was made on; write the folder anew: "
                "unlora export RUN --adapter --base-name ORG/MODEL."
            )


def unfindable_base(folder: Path, files: Sequence[Leaving]) -> str | None:
    """Say why whoever downloads an adapter does not find its base; None where they do, or there is no adapter."""
    if "adapter_config.json" not in (file.name for file in files):
        return None
    base = _base_in((folder / "adapter_config.json").read_text(encoding="utf-8", errors="replace"))
    if base is not None and not base.startswith("."):
        return None
    named = "names no base" if base is None else f"names its base by a path from here ({base})"
    return (
        f"{folder / 'adapter_config.json'}: {named}, which nobody who downloads it has; unlora export RUN --adapter "
        "--base-name ORG/MODEL writes it with the base's hub id"
    )


def _absolute_base(file: Leaving, text: str) -> str | None:
    if Path(file.name).name != "adapter_config.json":
        return None
    base = _base_in(text)
    return base if base is not None and Path(base).is_absolute() else None


def _base_in(text: str) -> str | None:
    try:
        base = json.loads(text).get("base_model_name_or_path")
    except (ValueError, AttributeError):
        return None
    return base if isinstance(base, str) and base else None
