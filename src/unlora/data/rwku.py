"""RWKU (Jin et al. 2024, arXiv 2406.10890): probes about real people, from the hub or from local files.

    FOLDER/{forget_level1,forget_level2,forget_level3,neighbor_level1,neighbor_level2}.json
        [{"query", "answer", "subject", "type"}]; "type" names the attack of a probe of forget_level3

    FOLDER/{forget_mia,retain_mia}.json, only where membership is asked for
        [{"text", "subject"}]

and the utility sets that are asked for (`unlora.data.rwku_utility`). A folder holds all people, or one as RWKU's
data_process.py lays it out. Nothing of the data comes with this package.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlora.artifacts import read_json
from unlora.data.hub import load_from_hub
from unlora.data.rwku_utility import FILES, UTILITY, Ability, UtilityProbe, text_under
from unlora.errors import InputError, nearest

HUB_ID = "jinzhuoran/RWKU"
SETS = ("forget_level1", "forget_level2", "forget_level3", "neighbor_level1", "neighbor_level2")
"""A configuration on the hub, a file on disk: fill-in-the-blank, questions, attacks; the first two about neighbours."""
TEXTS = {"forget_mia": "mia_forget", "retain_mia": "mia_retain"}
"""A file on disk -> its configuration on the hub: passages about the person, and about others, that were trained on."""
EVERYONE = "all"


@dataclass(frozen=True, slots=True)
class RwkuProbe:
    """One question or sentence with a blank; or one text, which is all answer."""

    query: str
    """Empty for a text."""
    answer: str
    subject: str
    """Whom its forget set is about; a probe about a neighbour says whose neighbour."""
    kind: str
    """Of forget_level3, the attack; elsewhere empty."""
    source: str
    """Where it came from: "forget_level1.json, entry 3"."""

    @property
    def told(self) -> list[str]:
        """What is asked, for the hash of all."""
        return [self.query, self.answer, self.kind]


@dataclass(frozen=True)
class RwkuData:
    """What is asked, set by set; sets without a probe about the person are left out."""

    sets: Mapping[str, tuple[RwkuProbe | UtilityProbe, ...]]

    def sha256(self) -> str:
        """Hash of the contents; equal for the same probes from another place."""
        told = {name: [one.told for one in probes] for name, probes in self.sets.items()}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def load_rwku(
    subject: str,
    folder: Path | None = None,
    *,
    max_examples: int | None = None,
    texts: bool = False,
    utility: Sequence[Ability] = (),
) -> RwkuData:
    """Load the probes about one person, or about all.

    Args:
        subject: a name as RWKU writes it ("Stephen King", or "Stephen_King"), or "all".
        folder: holds the five files; None loads from the hub.
        max_examples: first probes of each set; None takes all.
        texts: whether to load the two sets of texts too.
        utility: the utility sets to load too.

    Raises:
        InputError: no such person (with the nearest name), no such folder or file, hub not reachable, or a bad entry.
    """
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it must hold {SETS[0]}.json and the like.")
    names = (*SETS, *(TEXTS if texts else ()), *(UTILITY[ability].name for ability in utility))
    probes = {name: _load(name, folder) for name in names}
    name = subject.replace("_", " ")
    chosen = {
        one: tuple(probe for probe in found if name in (EVERYONE, probe.subject))[:max_examples]
        for one, found in probes.items()
    }
    known = list(dict.fromkeys(probe.subject for found in probes.values() for probe in found))
    if not any(chosen.values()):
        hint = nearest(name, known) or f" The first of {len(known)}: {', '.join(known[:3])}."
        raise InputError(f"rwku:{subject}: RWKU has no probe about such a person.{hint}")
    return RwkuData({one: found for one, found in chosen.items() if found})


def _load(name: str, folder: Path | None) -> list[RwkuProbe] | list[UtilityProbe]:
    file = FILES.get(name)
    if folder is None:
        configuration = file.configuration if file else TEXTS.get(name, name)
        rows, where = _rows_from_hub(configuration), f"{HUB_ID} {configuration}"
    else:
        path = folder / f"{name}.json"
        rows, where = _rows_from_file(path), str(path)
    places = [f"{where}, entry {number}" for number in range(1, len(rows) + 1)]
    if file is not None:
        return [file.parse(_fields(row), place) for row, place in zip(rows, places, strict=True)]
    parse = _parse_text if name in TEXTS else _parse
    return [parse(_fields(row), place) for row, place in zip(rows, places, strict=True)]


def _rows_from_file(file: Path) -> list[Any]:
    if not file.is_file():
        raise InputError(f"{file}: no such file; RWKU's data_process.py writes it.")
    rows = read_json(file)
    if not isinstance(rows, list):
        raise InputError(f"{file}: must hold a list of probes.")
    return rows


def _rows_from_hub(name: str) -> list[Any]:
    advice = "with the files in a local folder, name that folder (rwku:NAME@FOLDER)"
    return list(load_from_hub(HUB_ID, name, "test", what=f"rwku {name}", advice=advice))


def _fields(row: Any) -> dict[str, Any]:
    """What is no object has no fields, and is refused for the first that it lacks."""
    return row if isinstance(row, dict) else {}


def _parse(fields: Mapping[str, Any], where: str) -> RwkuProbe:
    query, answer, subject = (text_under(fields, key, where) for key in ("query", "answer", "subject"))
    kind = fields.get("type")
    return RwkuProbe(query, answer, subject, kind if isinstance(kind, str) else "", where)


def _parse_text(fields: Mapping[str, Any], where: str) -> RwkuProbe:
    text, subject = (text_under(fields, key, where) for key in ("text", "subject"))
    return RwkuProbe("", text, subject, "", where)
