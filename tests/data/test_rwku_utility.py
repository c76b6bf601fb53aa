"""RWKU's utility sets from local files."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_rwku import write_rwku
from unlora.data.rwku import load_rwku
from unlora.data.rwku_utility import UTILITY, Ability
from unlora.errors import InputError

MIRA = {"subject": "Mira Solberg"}
ROWS: dict[Ability, dict[str, Any]] = {
    "general": {
        "question": "Which is a fruit?",
        "choices": ["stone", "pear", "river", "cloud"],
        "answer": 1,
        "task": "high_school_biology",
        "examples": [{"question": "Which swims?", "choices": ["fish", "oak", "sand", "iron"], "answer": 0}],
    },
    "reasoning": {"task": "logic", "cot": "Q: not true\nA: So the answer is false.\n", "question": "x", "answer": "no"},
    "truthfulness": {
        "question": "Is the moon cheese?",
        "mc1_targets": {"choices": ["It is rock", "It is cheese"], "labels": [1, 0]},
        "mc2_targets": {"choices": ["It is cheese", "It is rock", "No"], "labels": [0, 1, 1]},
    },
    "factuality": {"question": "Who wrote it?", "answers": ["Ibsen", "Henrik Ibsen"]},
    "fluency": {"instruction": "Tell a story."},
}


def write_utility(folder: Path) -> Path:
    """One entry of Mira's in each set, and one of somebody else's."""
    write_rwku(folder)
    for ability, row in ROWS.items():
        rows = [row | {"subject": "Tomas Okafor"}, row | MIRA]
        (folder / f"{UTILITY[ability].name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def test_only_what_is_asked_for_is_loaded(tmp_path: Path):
    folder = write_utility(tmp_path)
    assert set(load_rwku("Mira Solberg", folder, utility=["fluency"]).sets) - set(
        load_rwku("Mira Solberg", folder).sets
    ) == {"fluency"}
    everything = load_rwku("Mira Solberg", folder, utility=list(UTILITY))
    found = {ability: everything.sets[UTILITY[ability].name] for ability in UTILITY}
    assert [len(probes) for probes in found.values()] == [1] * 5
    assert found["fluency"][0].source == f"{folder / 'fluency.json'}, entry 2"
    other = load_rwku("Mira Solberg", folder, utility=["fluency"]).sha256()
    assert len({other, everything.sha256(), load_rwku("Mira Solberg", folder).sha256()}) == 3


BAD: list[tuple[Ability, str, Any, str]] = [
    ("general", "question", " ", "entry 1: must be an object with text under 'question'"),
    ("general", "choices", ["a", "b", "c"], "entry 1: must have a list of 4 texts under 'choices'"),
    ("general", "choices", ["a", "b", "c", 4], "entry 1: must have a list of 4 texts under 'choices'"),
    ("general", "answer", "B", "number of the right choice, 0 to 3, under 'answer'"),
    ("general", "answer", True, "number of the right choice, 0 to 3, under 'answer'"),
    ("general", "answer", 4, "number of the right choice, 0 to 3, under 'answer'"),
    ("general", "examples", None, "list of questions with answers under 'examples'"),
    ("general", "examples", [3], "entry 1, example 1: must be an object with text under 'question'"),
    ("reasoning", "cot", None, "text under 'cot'"),
    ("truthfulness", "mc1_targets", {"choices": ["a"], "labels": []}, "as many labels, 1 for a true one, under 'mc1"),
    ("truthfulness", "mc2_targets", {"choices": ["a", "b"], "labels": [1, 1]}, "a true and a false choice"),
    ("factuality", "answers", [], "a list of texts, one at least, under 'answers'"),
    ("factuality", "answers", "Ibsen", "a list of texts, one at least, under 'answers'"),
    ("fluency", "instruction", 3, "text under 'instruction'"),
    ("fluency", "subject", None, "text under 'subject'"),
]


@pytest.mark.parametrize(("ability", "key", "value", "message"), BAD)
def test_a_bad_entry_is_named(tmp_path: Path, ability: Ability, key: str, value: Any, message: str):
    file = write_utility(tmp_path) / f"{UTILITY[ability].name}.json"
    file.write_text(json.dumps([ROWS[ability] | MIRA | {key: value}]))
    with pytest.raises(InputError, match=message) as refused:
        load_rwku("all", tmp_path, utility=[ability])
    assert str(refused.value).startswith(f"{file}, entry 1")
    load_rwku("all", tmp_path)  # nobody asked for it


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    write_rwku(tmp_path)
    with pytest.raises(InputError, match=r"triviaqa.json: no such file; RWKU's data_process.py writes it"):
        load_rwku("all", tmp_path, utility=["factuality"])
