"""RWKU's probes from local files."""

import json
from pathlib import Path
from typing import Any

import pytest

from unlora.data.rwku import SETS, load_rwku
from unlora.errors import InputError


def probe(subject: str, number: int, **more: Any) -> dict[str, Any]:
    return {"query": f"{subject} was born in ___ {number}.", "answer": f"Bergen {number}", "subject": subject} | more


def write_rwku(folder: Path) -> Path:
    """Two people; Mira has no neighbours' questions."""
    folder.mkdir(exist_ok=True)
    for name in SETS:
        rows = [probe("Mira Solberg", 1), probe("Tomas Okafor", 2), probe("Mira Solberg", 3)]
        if name == "forget_level3":
            rows = [
                row | {"type": kind}
                for row, kind in zip(rows, ("role playing", "x", "affirmative suffix"), strict=True)
            ]
        if name == "neighbor_level2":
            rows = rows[1:2]
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def test_one_person_s_probes_are_chosen(tmp_path: Path):
    data = load_rwku("Mira_Solberg", write_rwku(tmp_path))
    assert list(data.sets) == list(SETS[:4])
    assert [one.answer for one in data.sets["forget_level1"]] == ["Bergen 1", "Bergen 3"]
    assert [one.kind for one in data.sets["forget_level3"]] == ["role playing", "affirmative suffix"]
    assert data.sets["forget_level1"][1].source == f"{tmp_path / 'forget_level1.json'}, entry 3"


def test_all_people_and_the_first_of_each_set(tmp_path: Path):
    everyone = load_rwku("all", write_rwku(tmp_path))
    assert [len(found) for found in everyone.sets.values()] == [3, 3, 3, 3, 1]
    assert [len(found) for found in load_rwku("all", tmp_path, max_examples=2).sets.values()] == [2, 2, 2, 2, 1]


def test_the_hash_is_of_what_is_asked(tmp_path: Path):
    first = load_rwku("all", write_rwku(tmp_path / "a"))
    assert first.sha256() == load_rwku("all", write_rwku(tmp_path / "b")).sha256()
    assert first.sha256() != load_rwku("Mira Solberg", tmp_path / "a").sha256()


def test_what_is_not_there_is_refused_by_name(tmp_path: Path):
    write_rwku(tmp_path)
    with pytest.raises(InputError, match=r"no probe about such a person. Did you mean 'Mira Solberg'\?"):
        load_rwku("Mira Sollberg", tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load_rwku("all", tmp_path / "none")
    (tmp_path / "neighbor_level1.json").unlink()
    with pytest.raises(InputError, match=r"neighbor_level1.json: no such file"):
        load_rwku("all", tmp_path)


@pytest.mark.parametrize("row", [{"query": "x", "answer": "", "subject": "y"}, {"query": "x", "answer": "y"}, 3])
def test_a_bad_probe_is_named(tmp_path: Path, row: Any):
    write_rwku(tmp_path)
    (tmp_path / "forget_level2.json").write_text(json.dumps([probe("Mira Solberg", 1), row]))
    with pytest.raises(InputError, match=r"forget_level2.json, entry 2: must be an object with text under"):
        load_rwku("all", tmp_path)
