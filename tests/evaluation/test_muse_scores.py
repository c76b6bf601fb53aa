"""Scores on MUSE come back from disk as they were, and a file of something else is refused."""

import json
import math
from pathlib import Path

import pytest

from tests.evaluation.test_muse import answers, made, texts
from unlora.errors import InputError
from unlora.evaluation.muse_scores import load_muse_scores, save_muse_scores


def test_saved_scores_come_back(tmp_path: Path) -> None:
    scores = made(texts(-1.5, -2.5, cut=1), verbatim=answers(0.25, 1.0))
    save_muse_scores(tmp_path / "scores.jsonl", scores)
    assert load_muse_scores(tmp_path / "scores.jsonl") == scores


def test_unscored_is_null_on_disk_and_nan_again(tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl"
    save_muse_scores(file, made(texts(math.nan), verbatim=answers(math.nan)))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[1]["part"] == "verbatim"
    assert lines[1]["rouge_l_f1"] is None
    scores = load_muse_scores(file)
    assert math.isnan(scores.verbatim[0].rouge_l_f1)
    assert math.isnan(scores.forget_texts[0].min_40_score)


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
    save_muse_scores(file, made())
    header = file.read_text().splitlines()[0]
    file.write_text("\n".join(header if line is None else json.dumps(line) for line in lines))
    with pytest.raises(InputError, match=message):
        load_muse_scores(file)
    with pytest.raises(InputError, match="cannot be read"):
        load_muse_scores(tmp_path / "nowhere.jsonl")
