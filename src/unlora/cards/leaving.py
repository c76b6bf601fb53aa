"""What leaves the machine with a folder: its files, which of them may hold texts of records, and whose machine they
name.
"""

import json
from collections.abc import Sequence
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
WRITTEN_BY_PEOPLE = (".md", ".jinja")
SETTINGS = (".json", ".md", ".jinja", ".py")
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
        InputError: not a folder, or one without files.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give a run, or a folder that unlora export wrote.")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
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
        if forget is not None and Path(file.name).suffix in WRITTEN_BY_PEOPLE and file.size <= LONGEST:
            text = Example("text", "", (folder / file.name).read_text(encoding="utf-8", errors="replace"), file.name)
            held = next((place for place in same_examples(forget.examples, [text]) if place is not None), None)
            if held is not None:
                raise InputError(
                    f"{folder / file.name}: holds a record that was to be forgotten; take it out, or send it too with "
                    "--with-texts."
                )


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


def _absolute_base(file: Leaving, text: str) -> str | None:
    if Path(file.name).name != "adapter_config.json":
        return None
    try:
        base = json.loads(text).get("base_model_name_or_path")
    except (ValueError, AttributeError):
        return None
    return base if isinstance(base, str) and Path(base).is_absolute() else None
