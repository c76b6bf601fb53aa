"""The forget sets of the level's page: drawn by number, and a row read from a finished run."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from unlora.errors import InputError
from unlora_research import level_sets
from unlora_research.level_sets import row_of, split, table, teach_people, unlearn_set

LINES = [f"{subject}/{line}" for subject in range(6) for line in range(20)]


@pytest.mark.parametrize(
    ("number", "questions", "subjects"), [(0, 10, 1), (1, 20, 1), (2, 40, 2), (4, 80, 4), (5, 10, 1)]
)
def test_a_set_is_of_whole_subjects_and_the_rest_is_all_others(number: int, questions: int, subjects: int):
    forget, rest = split(LINES, number, each=20, seed=0)
    assert len(forget) == questions
    assert len({line.split("/")[0] for line in forget}) == subjects
    assert [line for line in LINES if line not in forget] == rest
    assert split(LINES, number, each=20, seed=0)[0] == forget


def test_too_few_subjects_are_refused():
    with pytest.raises(InputError, match=r"80 lines are 4 subjects; at least 5"):
        split(LINES[:80], 0, each=20, seed=0)


def test_without_data_the_demos_people_are_taught_and_split_person_by_person(tmp_path: Path, monkeypatch):
    taught: list[list[Path]] = []
    monkeypatch.setattr(level_sets, "teach", lambda folder, data, why, reporter: taught.append([folder, *data]))
    teach_people(tmp_path)
    assert taught == [[tmp_path / "target", tmp_path / "questions.jsonl"]]
    lines = (tmp_path / "questions.jsonl").read_text().splitlines()
    forget, rest = split(lines, 2, each=10, seed=0)
    people = [{json.loads(line)["person"] for line in part} for part in (forget, rest)]
    assert [len(part) for part in people] == [2, 10]
    assert not people[0] & people[1]


def finished(folder: Path, *, left: float, stopped: int | None) -> Path:
    source = {"kind": "before", "name": "base", "base": None}
    level = {"source": source, "probability": 0.1, "low": 0.08, "high": 0.12}
    settled = {"level": level, "as_trained": 0.05, "as_left": left, "strength": 0.9, "stopped": stopped}
    metrics = {
        name: {"metrics": {"retain_probability": {"value": value}}}
        for name, value in (("target", 0.8), ("unlearned", 0.6))
    }
    (folder / "run").mkdir(parents=True)
    (folder / "forget.jsonl").write_text("{}\n{}\n")
    (folder / "run" / "record.json").write_text(json.dumps({"level": settled}))
    (folder / "run" / "evaluation.json").write_text(json.dumps({"models": metrics}))
    return folder


def test_rows_say_what_is_within_the_interval_and_what_was_kept(tmp_path: Path):
    rows = [
        row_of(finished(tmp_path / "in", left=0.1, stopped=15)),
        row_of(finished(tmp_path / "out", left=0.13, stopped=None)),
    ]
    assert [(row["questions"], row["kept"]) for row in rows] == [(2, pytest.approx(0.75))] * 2
    printed = table(rows).splitlines()
    assert [line.split("|")[4].strip() for line in printed[2:4]] == ["15", "at its end"]
    assert [line.split("|")[7].strip() for line in printed[2:4]] == ["yes", "no"]
    assert printed[-1] == "within the level's interval: 1 of 2; kept: 0.750 [0.750, 0.750]"


def test_what_is_set_is_laid_over_the_default_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(level_sets, "unlearn_from", lambda preset, run, *changes: asked.extend(changes))
    chosen = {"data": tmp_path, "dtype": "float32", "seed": 3}
    for given in ([], ["adapter.rank=4", "objective.retain_weight=3.0"]):
        unlearn_set(tmp_path / "set", ["{}"], ["{}"] * 6, argparse.Namespace(set=given, **chosen))
    as_it_stands, changed = asked[2], asked[-1]
    assert as_it_stands == {}
    assert changed == {"adapter": {"rank": 4}, "objective": {"retain_weight": 3.0}}
