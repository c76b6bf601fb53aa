"""The corpora of WMDP (Li et al. 2024, arXiv 2403.03218), from the hub or a local folder: texts to forget or to keep.

bio-forget-corpus is gated: its page on the hub asks for consent first. Nothing of the data comes with this package.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unlora.data.hub import load_from_hub
from unlora.data.json_lines import parse_json_lines, read_data_text
from unlora.data.pieces import MAX_WORDS, cut_text
from unlora.data.records import Example, ExampleSet
from unlora.errors import InputError, nearest

CORPORA: dict[str, tuple[str, str | None]] = {
    "bio-forget-corpus": ("cais/wmdp-bio-forget-corpus", None),
    "bio-retain-corpus": ("cais/wmdp-corpora", "bio-retain-corpus"),
    "cyber-forget-corpus": ("cais/wmdp-corpora", "cyber-forget-corpus"),
    "cyber-retain-corpus": ("cais/wmdp-corpora", "cyber-retain-corpus"),
    "wikitext": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
}
"""Name -> (data set on the hub, its configuration); always the split "train"."""

PARTS = {"bio-forget-corpus": ("title", "abstract", "text")}
"""What a document of several fields is joined from; the others have only "text"."""

_HEADING = re.compile(r"\s*(= )+.*( =)+\s*")


def load_wmdp(name: str, folder: Path | None = None) -> ExampleSet:
    """Load one corpus as examples of shape "text".

    Documents are cut into consecutive pieces of at most `pieces.MAX_WORDS` words, nothing lost. A document of
    bio-forget-corpus is its title, abstract and text, one after another (WMDP's own RMU trains on the text alone).
    Documents without a word, and wikitext's headings, are left out; the set's name says how many.

    Args:
        name: one of `CORPORA`.
        folder: holds NAME.jsonl, one {"text": ...} a line (for bio-forget-corpus title and abstract too); None loads
            from the hub.

    Raises:
        InputError: no such corpus (with the nearest name), no such file, hub not reachable, access not granted, or a
            bad line.
    """
    if name not in CORPORA:
        hint = nearest(name, CORPORA) or f" Known corpora: {', '.join(CORPORA)}."
        raise InputError(f"wmdp:{name}: WMDP has no such corpus.{hint}")
    rows = _rows_from_hub(name) if folder is None else _rows_from_folder(name, folder)
    documents = [(where, _document(name, row, where)) for where, row in rows]
    kept = [(where, text) for where, text in documents if _is_content(name, text)]
    if not kept:
        raise InputError(f"wmdp:{name}: holds no text{'' if folder is None else f' ({folder / name}.jsonl)'}.")
    left_out = len(documents) - len(kept)
    what = "empty lines and headings" if name == "wikitext" else "empty documents"
    note = f" ({left_out} {what} left out)" if left_out else ""
    return ExampleSet(f"wmdp:{name}{note}", tuple(_cut(kept)))


def _rows_from_folder(name: str, folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    file = folder / f"{name}.jsonl"
    if not file.is_file():
        raise InputError(f'{file}: no such file; it must hold one {{"text": ...}} a line.')
    return parse_json_lines(read_data_text(file), str(file))


def _rows_from_hub(name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    hub_id, configuration = CORPORA[name]
    advice = f"with the corpus in a local file FOLDER/{name}.jsonl, write wmdp:{name}@FOLDER"
    loaded = load_from_hub(hub_id, configuration, "train", what=f"wmdp:{name}", advice=advice)
    return ((f"{hub_id} {name}, row {number}", row) for number, row in enumerate(loaded, start=1))


def _document(name: str, row: Mapping[str, Any], where: str) -> str:
    if "text" not in row:
        raise InputError(f"{where}: key 'text' is missing.")
    values = [row.get(key) for key in PARTS.get(name, ("text",))]
    for key, value in zip(PARTS.get(name, ("text",)), values, strict=True):
        if not isinstance(value, str) and (value is not None or key == "text"):
            raise InputError(f"{where}: '{key}' must be text.")
    return "\n\n".join(value for value in values if value and value.strip())


def _is_content(name: str, text: str) -> bool:
    return bool(text.strip()) and not (name == "wikitext" and _HEADING.fullmatch(text))


def _cut(documents: Iterable[tuple[str, str]]) -> Iterator[Example]:
    for where, text in documents:
        pieces = cut_text(text, max_words=MAX_WORDS)
        for number, piece in enumerate(pieces, start=1):
            yield Example("text", "", piece, where if len(pieces) == 1 else f"{where}, piece {number} of {len(pieces)}")
