import math
from pathlib import Path
from typing import Any

import pytest

from tests.suites.tofu.made_scores import made_model, made_score
from unlora.errors import InputError
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.scores import TOFU_FILE, UNKNOWN_QUESTION, check_asked_alike


def test_round_trip_keeps_every_field_and_nan_as_unscored(tmp_path: Path) -> None:
    odd = made_score(1, right=0.5, wrong=(0.25, 0.125), question="Where?\u2028\nThere é", rouge_l_recall=math.nan)
    scores = made_model(forget=[made_score(0), odd], retain=[made_score(2, generated=None)])
    TOFU_FILE.save(tmp_path / "scores.jsonl", scores)
    assert "NaN" not in (tmp_path / "scores.jsonl").read_text()
    loaded = TOFU_FILE.load(tmp_path / "scores.jsonl")
    assert repr(loaded) == repr(scores)  # NaN differs from itself, its text does not
    assert math.isnan(loaded.sets["forget"][1].rouge_l_recall)


@pytest.mark.parametrize(
    ("line", "content", "message"),
    [
        (1, '{"question": "a", "answer": "b"}', "line 1: not the header"),
        (1, "no JSON", "line 1: not valid JSON"),
        (2, "[1]", "line 2: must be a JSON object"),
        (2, '{"set": "forget", "source": "x"}', "line 2: not an example's scores"),
        (3, "", "line 3: not valid JSON"),
    ],
)
def test_bad_line_is_refused_with_its_number(tmp_path: Path, line: int, content: str, message: str) -> None:
    path = tmp_path / "scores.jsonl"
    TOFU_FILE.save(path, made_model(forget=[made_score(0), made_score(1)]))
    lines = path.read_text().splitlines()
    lines[line - 1] = content
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=message):
        TOFU_FILE.load(path)


def test_an_example_with_an_unknown_or_a_wrong_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    TOFU_FILE.save(path, made_model(forget=[made_score()]))
    text = path.read_text()
    for broken in (text.replace('"probability": 0.5', '"probability": "high"'), text.replace('"set"', '"sets"')):
        path.write_text(broken)
        with pytest.raises(InputError, match="line 2: not an example's scores"):
            TOFU_FILE.load(path)


@pytest.mark.parametrize(
    ("protocol", "key"),
    [
        ({"template": "plain"}, "template"),
        ({"sets": [1]}, "sets"),
        ({"sets": {"forget": 3}}, "sets.forget"),
        ({"sets": {"forget": {"example_count": 3, "truncated_count": "0"}}}, "sets.forget.truncated_count"),
    ],
)
def test_protocol_of_another_kind_is_refused(tmp_path: Path, protocol: dict[str, Any], key: str) -> None:
    TOFU_FILE.save(tmp_path / "scores.jsonl", ModelScores({"forget": (made_score(),)}, protocol))
    with pytest.raises(InputError, match=rf"scores\.jsonl, line 1: protocol\.{key}: not as unlora writes it\.$"):
        TOFU_FILE.load(tmp_path / "scores.jsonl")


def test_file_cut_at_the_end_of_a_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    TOFU_FILE.save(path, made_model(forget=[made_score(0), made_score(1)], retain=[made_score(2)]))
    lines = path.read_text().splitlines(keepends=True)
    for kept, message in ((3, "holds 0 of 1 lines of set 'retain'"), (2, "holds 1 of 2 lines of set 'forget'")):
        path.write_text("".join(lines[:kept]))
        with pytest.raises(InputError, match=message):
            TOFU_FILE.load(path)
    for counts in ('{"forget": 2}', "3"):
        path.write_text("".join([lines[0].replace('{"forget": 2, "retain": 1}', counts), *lines[1:]]))
        with pytest.raises(InputError, match="line 1: does not count what follows"):
            TOFU_FILE.load(path)


def test_scores_of_a_version_that_did_not_count_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    scores = made_model(forget=[made_score(0), made_score(1)])
    TOFU_FILE.save(path, scores)
    old = path.read_text().replace('"counts": {"forget": 2}, ', "")
    assert "counts" not in old
    path.write_text(old)
    assert repr(TOFU_FILE.load(path)) == repr(scores)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        TOFU_FILE.load(tmp_path / "none.jsonl")


def test_models_asked_the_same_in_another_order_are_comparable() -> None:
    check_asked_alike(
        made_model(forget=[made_score(0), made_score(1)], retain=[made_score(2)]),
        made_model(forget=[made_score(1), made_score(0)]),
    )


@pytest.mark.parametrize(("truncated_count", "refused"), [(0, False), (1, True)])
def test_another_length_limit_matters_only_where_it_cut_an_answer(truncated_count: int, refused: bool) -> None:
    scores = made_model(forget=[made_score()])
    one, other = (
        ModelScores(
            scores.sets,
            {"template": {"max_length": length}, "sets": {"forget": {"truncated_count": truncated_count}}},
        )
        for length in (200, 512)
    )
    if refused:
        with pytest.raises(InputError, match="cut at 200 and 512 tokens"):
            check_asked_alike(one, other)
    else:
        check_asked_alike(one, other)


def test_where_questions_are_unknown_their_number_is_compared() -> None:
    scores = made_model(forget=[made_score(0), made_score(1)])
    unknown = [made_score(question_sha256=UNKNOWN_QUESTION) for _ in range(3)]
    check_asked_alike(scores, ModelScores({"forget": tuple(unknown[:2])}, {"name": "tofu"}))
    with pytest.raises(InputError, match=r"different forget questions \(2 and 3 examples\)"):
        check_asked_alike(scores, ModelScores({"forget": tuple(unknown)}, {"name": "tofu"}))


def test_scores_without_the_field_that_came_later_are_read(tmp_path: Path) -> None:
    TOFU_FILE.save(tmp_path / "scores.jsonl", made_model(forget=[made_score()]))
    text = (tmp_path / "scores.jsonl").read_text()
    old = text.replace(', "known_truth_ratio": null', "")
    assert old != text
    (tmp_path / "scores.jsonl").write_text(old)
    assert math.isnan(TOFU_FILE.load(tmp_path / "scores.jsonl").sets["forget"][0].known_truth_ratio)


def test_models_asked_in_another_way_are_not_comparable() -> None:
    scores = made_model(forget=[made_score()])
    plain = {"template": {"rendered_probe_sha256": "a"}, "max_new_tokens": 32}
    chat = {"template": {"rendered_probe_sha256": "b"}, "max_new_tokens": 32}
    with pytest.raises(InputError, match="different templates"):
        check_asked_alike(ModelScores(scores.sets, plain), ModelScores(scores.sets, chat))
    with pytest.raises(InputError, match="max_new_tokens was 32 for one model, 64 for another"):
        check_asked_alike(ModelScores(scores.sets, plain), ModelScores(scores.sets, plain | {"max_new_tokens": 64}))
    with pytest.raises(InputError, match="protocol was tofu for one model, unlora for another"):
        check_asked_alike(ModelScores(scores.sets, {"name": "tofu"}), ModelScores(scores.sets, {"name": "unlora"}))
    with pytest.raises(InputError, match="different forget questions"):
        check_asked_alike(scores, made_model(forget=[made_score(token_count=3)]))
