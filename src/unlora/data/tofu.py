"""TOFU (Maini et al. 2024, arXiv 2401.06121): questions about fictitious authors, from the hub or a local folder."""

import dataclasses
from pathlib import Path

from unlora.data.hub import load_from_hub
from unlora.data.records import Example, ExampleSet
from unlora.data.user_jsonl import parse_record, read_examples
from unlora.errors import InputError, nearest

HUB_ID = "locuslab/TOFU"
HUB_SPLITS = (
    "full",
    *("forget01", "forget05", "forget10", "retain99", "retain95", "retain90"),
    *("forget01_perturbed", "forget05_perturbed", "forget10_perturbed", "retain_perturbed"),
    *("real_authors", "real_authors_perturbed", "world_facts", "world_facts_perturbed"),
    *("holdout01", "holdout05", "holdout10"),
)
SCHEME = "tofu:"


def load_tofu(split: str, folder: Path | None = None) -> ExampleSet:
    """Load one split, such as "forget01", "retain99" or "real_authors_perturbed".

    Where wrong answers come without a paraphrase of the right one (real authors, world facts), the plain answer stands
    in for it, as in TOFU's own evaluation.

    Args:
        split: a configuration of `locuslab/TOFU`, or the name of a file in `folder`. The holdout splits (authors that
            no released model saw) are the non-members of membership attacks.
        folder: holds SPLIT.json or SPLIT.jsonl (JSON lines); None loads from the hub.

    Raises:
        InputError: no such split (with the nearest spelling), no such folder, hub not reachable, or a bad line.
    """
    examples = _load_from_hub(split) if folder is None else _load_from_folder(split, folder)
    return ExampleSet(examples.name, tuple(map(_with_paraphrase, examples)))


def perturbed_version(source: str) -> str:
    """Name the split with paraphrased and perturbed answers in place of a TOFU split that has one.

    "tofu:forget01" becomes "tofu:forget01_perturbed", every retain split "tofu:retain_perturbed" (the questions of the
    first 20 authors); everything else, such as a file, stays as it is.
    """
    split = _split_of(source)
    if split is None or split.endswith("_perturbed"):
        return source
    if split.startswith("retain"):
        return _same_place(source, "retain_perturbed")
    known = f"{split}_perturbed" in HUB_SPLITS
    return _same_place(source, f"{split}_perturbed") if known else source


def companion(source: str, split: str) -> str | None:
    """Name another split at the same place as the TOFU forget set `source`.

    Returns:
        "tofu:SPLIT" or "tofu:SPLIT@FOLDER"; None where `source` is not a forget split of TOFU, or has no such file
        beside it.
    """
    own = _split_of(source)
    if own is None or not own.startswith("forget"):
        return None
    _, _, folder = source.partition("@")
    there = split in _files(Path(folder)) if folder else split in HUB_SPLITS
    return _same_place(source, split) if there else None


def _split_of(source: str) -> str | None:
    return source.removeprefix(SCHEME).partition("@")[0] if source.startswith(SCHEME) else None


def _same_place(source: str, split: str) -> str:
    _, at, folder = source.partition("@")
    return f"{SCHEME}{split}{at}{folder}"


def _with_paraphrase(example: Example) -> Example:
    if example.perturbed_answers and example.paraphrased_answer is None:
        return dataclasses.replace(example, paraphrased_answer=example.completion)
    return example


def _load_from_folder(split: str, folder: Path) -> ExampleSet:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it must hold the TOFU files, such as forget01.json.")
    files = _files(folder)
    if split not in files:
        raise InputError(f"{folder}: no TOFU split '{split}' ({split}.json or {split}.jsonl).{nearest(split, files)}")
    return read_examples(files[split], name=f"tofu:{split}")


def _files(folder: Path) -> dict[str, Path]:
    """Splits in a folder; none where there is no folder."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.stem: path for path in found if path.suffix in (".json", ".jsonl")}


def _load_from_hub(split: str) -> ExampleSet:
    if split not in HUB_SPLITS:
        hint = nearest(split, HUB_SPLITS) or f" Known splits: {', '.join(HUB_SPLITS)}."
        raise InputError(f"tofu:{split}: TOFU has no such split.{hint}")
    advice = f"with the files in a local folder, write tofu:{split}@FOLDER"
    rows = load_from_hub(HUB_ID, split, "train", what=f"tofu:{split}", advice=advice)
    records = (parse_record(row, f"{HUB_ID} {split}, row {number}") for number, row in enumerate(rows, start=1))
    return ExampleSet(f"tofu:{split}", tuple(records))
