"""What a file of scores says of an item is of the kind that was written, or the line is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.suites.tofu.made_scores import BLANK
from unlora.errors import InputError
from unlora.suites.muse.scores import AnswerScore, TextScore
from unlora.suites.scores import ModelScores, ScoreFile
from unlora.suites.wmdp.scores import QuestionScore


def file_of(item: Any) -> ScoreFile[Any]:
    return ScoreFile("scores of a test", 1, "set", type(item))


ITEMS = (
    dataclasses.replace(BLANK, paraphrased_log_prob=-1.0, perturbed_log_probs=(-2.0,), known_truth_ratio=0.5),
    AnswerScore("a.json, entry 1", "Where?", "Here.", "There.", 0.5, -1.0, False),
    TextScore("a.json, document 1", "Once upon a time", 4, -3.0, True),
    QuestionScore("bio, question 1", "Which?", ("a", "b"), 1, (-1.0, -2.0), 1.0, False, (-1.0, -2.0), "a", 0.5, None),
)
FIELDS = [(item, field.name, field.type) for item in ITEMS for field in dataclasses.fields(item)]
VALUES: tuple[Any, ...] = (None, True, 3, 1.5, "0.5", [], ["x"], [1.5], {"a": 1})
RIGHT: dict[Any, tuple[Any, ...]] = {
    str: ("0.5",), int: (3,), float: (None, 3, 1.5), bool: (True,), str | None: (None, "0.5"),
    tuple[float, ...]: ([], [1.5]), tuple[str, ...]: ([], ["x"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("item", "name", "kind"), FIELDS, ids=[f"{type(one).__name__}-{name}" for one, name, _ in FIELDS]
)
def test_a_value_of_another_kind_is_refused_with_its_line(tmp_path: Path, item: Any, name: str, kind: Any) -> None:
    path = tmp_path / "scores.jsonl"
    file_of(item).save(path, ModelScores({"forget": (item,)}, {}))
    header, line = path.read_text().splitlines()
    taken, said = [], set()
    for value in VALUES:
        path.write_text(f"{header}\n{json.dumps(json.loads(line) | {name: value})}\n")
        try:
            file_of(item).load(path)
            taken.append(value)
        except InputError as error:
            said.add(str(error))
    assert list(map(repr, taken)) == [repr(value) for value in VALUES if repr(value) in map(repr, RIGHT[kind])]
    assert said == {f"{path}, line 2: not an example's scores as unlora writes them."}


@pytest.mark.parametrize("group", [None, 3, [], {}])
def test_a_group_that_is_no_name_is_refused(tmp_path: Path, group: Any) -> None:
    path = tmp_path / "scores.jsonl"
    file_of(BLANK).save(path, ModelScores({"forget": (BLANK,)}, {}))
    header, line = path.read_text().splitlines()
    path.write_text(f"{header}\n{json.dumps(json.loads(line) | {'set': group})}\n")
    with pytest.raises(InputError, match="line 2: not an example's scores"):
        file_of(BLANK).load(path)
