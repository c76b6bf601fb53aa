"""Scores on MUSE come back from disk as they were, and a file of something else is refused."""

import json
import math
from pathlib import Path

import pytest

from tests.suites.muse.test_metrics import answers, made, texts
from unlora.errors import InputError
from unlora.suites.muse.scores import MUSE_FILE


def test_saved_scores_come_back(tmp_path: Path) -> None:
    scores = made(texts(-1.5, -2.5, cut=1), verbatim=answers(0.25, 1.0))
    MUSE_FILE.save(tmp_path / "scores.jsonl", scores)
    assert MUSE_FILE.load(tmp_path / "scores.jsonl") == scores


def test_unscored_is_null_on_disk_and_nan_again(tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    MUSE_FILE.save(file, made(texts(math.nan), verbatim=answers(math.nan)))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[1]["part"] == "verbatim"
    assert lines[1]["rouge_l_f1"] is None
    scores = MUSE_FILE.load(file)
    assert math.isnan(scores.sets["verbatim"][0].rouge_l_f1)
    assert math.isnan(scores.sets["forget_texts"][0].min_40_score)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"kind": "unlora example scores", "schema": 1, "protocol": {}}], "line 1: not the header"),
        ([None, {"part": "verbatim", "source": "x"}], "line 2: not an example's scores"),
        ([None, {"part": "songs"}], "line 2: not an example's scores"),
    ],
)
def test_something_else_is_refused_with_its_line(tmp_path: Path, lines: list, message: str) -> None:
    file = tmp_path / "scores.jsonl"
    MUSE_FILE.save(file, made())
    header = file.read_text().splitlines()[0]
    file.write_text("\n".join(header if line is None else json.dumps(line) for line in lines))
    with pytest.raises(InputError, match=message):
        MUSE_FILE.load(file)
    with pytest.raises(InputError, match="cannot be read"):
        MUSE_FILE.load(tmp_path / "nowhere.jsonl")
