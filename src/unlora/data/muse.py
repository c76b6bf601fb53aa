"""MUSE (Shi et al. 2024, arXiv 2407.06460): news and books, from the hub or as MUSE's own load_data.py lays them out.

    FOLDER/{news,books}/knowmem/{forget_qa,retain_qa,forget_qa_icl,retain_qa_icl}.json   [{"question", "answer"}]
    FOLDER/{news,books}/verbmem/forget.json                                              [{"prompt", "gt"}]
    FOLDER/{news,books}/privleak/{forget,retain,holdout}.json                            [text]
    FOLDER/{news,books}/raw/{forget,holdout,retain1,retain2}.json                        [text]
    FOLDER/news/{scal,sust}/forget_{1,2,3,4}.json                                        [text]

Nothing of the data comes with this package.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unlora.artifacts import read_json
from unlora.data.hub import load_from_hub
from unlora.data.pieces import MAX_WORDS, cut_text
from unlora.data.records import Example, ExampleSet
from unlora.errors import InputError, nearest

Corpus = Literal["news", "books"]

HUB_IDS: dict[str, str] = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}
FOLDS = tuple(f"forget_{fold}" for fold in (1, 2, 3, 4))
SPLITS: dict[str, tuple[str, ...]] = {
    "raw": ("forget", "retain1", "retain2", "holdout"),
    "knowmem": ("forget_qa", "retain_qa", "forget_qa_icl", "retain_qa_icl"),
    "verbmem": ("forget",),
    "privleak": ("forget", "retain", "holdout"),
    "scal": FOLDS,
    "sust": FOLDS,
}
"""Part (a configuration on the hub, a folder on disk) -> its splits."""
NEWS_ONLY = ("scal", "sust")


@dataclass(frozen=True)
class MuseData:
    """What the evaluation of one corpus asks."""

    corpus: Corpus
    verbatim: ExampleSet
    """Prompts from the forget texts with their true continuations (verbmem/forget)."""
    forget_questions: ExampleSet
    """Questions about the forget texts (knowmem/forget_qa)."""
    forget_demonstrations: ExampleSet
    """The answered questions that stand before each of them (knowmem/forget_qa_icl)."""
    retain_questions: ExampleSet
    """Questions about the retain texts (knowmem/retain_qa)."""
    retain_demonstrations: ExampleSet
    """The answered questions that stand before each of them (knowmem/retain_qa_icl)."""
    forget_texts: ExampleSet
    """Whole texts that the target model was trained on: the members (privleak/forget)."""
    holdout_texts: ExampleSet
    """Whole texts of the same kind that no model here has seen: the non-members (privleak/holdout)."""

    def select(self, count: int | None) -> "MuseData":
        """Return the first `count` items of each part (None: all); demonstrations are part of a prompt and all stay."""
        if count is None:
            return self
        return MuseData(
            self.corpus,
            self.verbatim.select(count),
            self.forget_questions.select(count),
            self.forget_demonstrations,
            self.retain_questions.select(count),
            self.retain_demonstrations,
            self.forget_texts.select(count),
            self.holdout_texts.select(count),
        )

    def sha256(self) -> str:
        """Hash of the contents; equal for the same data from another place."""
        parts = [part.sha256() for part in vars(self).values() if isinstance(part, ExampleSet)]
        return hashlib.sha256("".join([self.corpus, *parts]).encode()).hexdigest()


def load_muse_data(corpus: Corpus, folder: Path | None = None) -> MuseData:
    """Load what MUSE evaluates a model on.

    Args:
        corpus: news or books.
        folder: holds news/ and books/, or is the folder of the one corpus; None loads from the hub.

    Raises:
        InputError: no such folder or file, hub not reachable, or a bad entry, named by file and number.
    """
    return MuseData(
        corpus,
        _load(corpus, "verbmem", "forget", folder),
        _load(corpus, "knowmem", "forget_qa", folder),
        _load(corpus, "knowmem", "forget_qa_icl", folder),
        _load(corpus, "knowmem", "retain_qa", folder),
        _load(corpus, "knowmem", "retain_qa_icl", folder),
        _load(corpus, "privleak", "forget", folder),
        _load(corpus, "privleak", "holdout", folder),
    )


def load_muse(name: str, folder: Path | None = None) -> ExampleSet:
    """Load one set for training or for evaluation.

    Texts come as consecutive pieces of at most `MAX_WORDS` words (see `data.pieces`), so that each fits 512 tokens;
    nothing but white space where two pieces meet is lost, and the source says document and piece.

    Args:
        name: "news/forget", "books/retain1", "news/retain2", "news/holdout"; "news/scal/forget_2",
            "news/sust/forget_1"; "books/privleak/holdout"; "news/knowmem/forget_qa" (questions with answers) or
            "news/verbmem/forget" (prompts with continuations).
        folder: holds news/ and books/, or is the folder of the one corpus; None loads from the hub.

    Raises:
        InputError: no such set (with the nearest name), no such folder or file, hub not reachable, or a bad entry.
    """
    names = muse_names()
    if len(muse_folds(name)) > 1:
        raise InputError(f"muse:{name}: names {len(FOLDS)} sets, one a request; name one, such as {name}/{FOLDS[0]}.")
    if name not in names:
        known = [one for one in names if one.count("/") == 1]
        hint = nearest(name, names) or f" Known sets: {', '.join(known)} and parts of them."
        raise InputError(f"muse:{name}: MUSE has no such set.{hint}")
    corpus, part, split = names[name]
    documents = _load(corpus, part, split, folder)
    pieces = tuple(piece for document in documents for piece in _cut(document))
    return ExampleSet(f"muse:{name}", pieces)


def muse_names() -> dict[str, tuple[Corpus, str, str]]:
    """Every name that `load_muse` knows -> (corpus, part, split)."""
    corpora: tuple[Corpus, ...] = ("news", "books")
    return {
        f"{corpus}/{split}" if part == "raw" else f"{corpus}/{part}/{split}": (corpus, part, split)
        for corpus in corpora
        for part, splits in SPLITS.items()
        if corpus == "news" or part not in NEWS_ONLY
        for split in splits
    }


def muse_folds(name: str) -> tuple[str, ...]:
    """Return the four sets that "news/sust" (requests one after another) or "news/scal" (growing) stands for.

    Any other name stands for itself.
    """
    return tuple(f"{name}/{fold}" for fold in FOLDS) if name in ("news/sust", "news/scal") else (name,)


def _cut(document: Example) -> Iterable[Example]:
    if document.shape != "text":
        return [document]
    pieces = cut_text(document.completion, max_words=MAX_WORDS)
    return [
        Example("text", "", piece, f"{document.source}, piece {number} of {len(pieces)}")
        for number, piece in enumerate(pieces, start=1)
    ]


def _load(corpus: Corpus, part: str, split: str, folder: Path | None) -> ExampleSet:
    if folder is None:
        rows, where = _rows_from_hub(corpus, part, split), f"{HUB_IDS[corpus]} {part} {split}"
    else:
        file = _corpus_folder(corpus, folder) / part / f"{split}.json"
        rows, where = _rows_from_file(file), str(file)
    unit = "entry" if part in ("knowmem", "verbmem") else "document"
    examples = tuple(_parse(part, row, f"{where}, {unit} {number}") for number, row in enumerate(rows, start=1))
    return ExampleSet(f"muse:{corpus}/{part}/{split}", examples)


def _corpus_folder(corpus: Corpus, folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it must hold {corpus}/ as MUSE's load_data.py writes it.")
    if (folder / corpus).is_dir():
        return folder / corpus
    (other,) = HUB_IDS.keys() - {corpus}
    if folder.resolve().name == other:
        raise InputError(f"{folder}: holds {other}, and {corpus} was asked for; give the folder above both.")
    if any((folder / part).is_dir() for part in SPLITS):
        return folder
    raise InputError(f"{folder}: holds neither {corpus}/ nor one of {', '.join(f'{part}/' for part in SPLITS)}.")


def _rows_from_file(file: Path) -> list[Any]:
    if not file.is_file():
        raise InputError(f"{file}: no such file; MUSE's load_data.py writes it.")
    rows = read_json(file)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{file}: must hold a list with at least one entry.")
    return rows


def _rows_from_hub(corpus: Corpus, part: str, split: str) -> list[Any]:
    advice = "with the files in a local folder, name that folder (muse:NAME@FOLDER, or the setting 'folder')"
    rows = list(load_from_hub(HUB_IDS[corpus], part, split, what=f"muse:{corpus} {part} {split}", advice=advice))
    return rows if part in ("knowmem", "verbmem") else [row["text"] for row in rows]


def _parse(part: str, entry: Any, where: str) -> Example:
    if part == "knowmem":
        return Example("question_answer", _text(entry, "question", where), _text(entry, "answer", where), where)
    if part == "verbmem":
        return Example("prompt_completion", _text(entry, "prompt", where), _text(entry, "gt", where), where)
    return Example("text", "", _checked(entry, "the text", where), where)


def _text(entry: Any, key: str, where: str) -> str:
    if not isinstance(entry, dict) or key not in entry:
        raise InputError(f"{where}: must be an object with the key '{key}'.")
    return _checked(entry[key], f"'{key}'", where)


def _checked(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {what} must be text, found {type(value).__name__}.")
    if not value.strip():
        raise InputError(f"{where}: {what} is empty.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: {what} holds half of a surrogate pair, which is no character.") from None
    return value
