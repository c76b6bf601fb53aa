"""Questions from every kind of file, and a refusal that says what is right for every bad entry."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from unlora.data.multiple_choice import questions_sha256, read_questions
from unlora.errors import InputError

GOOD = {"question": "Which city is on the Seine?", "choices": ["Rome", "Paris", "Oslo", "Bern"], "answer": 1}
OTHER = {"question": "What is\u2028two plus two?", "choices": ["1", "2", "3", "4"], "answer": 3, "id": 7}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_json_lines_a_json_list_and_parquet_hold_the_same(tmp_path: Path) -> None:
    lines = write(tmp_path / "q.jsonl", f"{json.dumps(GOOD)}\n{json.dumps(OTHER, ensure_ascii=False)}\n")
    as_list = write(tmp_path / "q.json", "\ufeff" + json.dumps([GOOD, OTHER], indent=1))
    parquet = tmp_path / "test-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([GOOD, OTHER]), parquet)
    first, second = read_questions(lines)
    assert (first.question, first.choices, first.answer) == (GOOD["question"], ("Rome", "Paris", "Oslo", "Bern"), 1)
    assert second.question == OTHER["question"]
    assert [one.source for one in (first, second)] == [f"{lines}, line 1", f"{lines}, line 2"]
    assert read_questions(as_list)[1].source == f"{as_list}, entry 2"
    hashes = {questions_sha256(read_questions(path)) for path in (lines, as_list, parquet)}
    assert len(hashes) == 1
    assert questions_sha256([first]) not in hashes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": 3}, "'question' must be text that is not empty"),
        ({"question": " "}, "'question' must be text that is not empty"),
        ({"question": "half \ud800"}, "'question' must be text"),
        ({"choices": "abcd"}, "'choices' must be a list of 4 texts"),
        ({"choices": ["a", "b", "c"]}, "'choices' must be a list of 4 texts"),
        ({"choices": ["a", "b", "c", ""]}, "'choices' must be a list of 4 texts, none empty"),
        ({"choices": ["a", "b", "c", 4]}, "'choices' must be a list of 4 texts"),
        ({"answer": 4}, r"'answer' must be 0, 1, 2 or 3, .* \(found 4\)"),
        ({"answer": -1}, r".*found -1"),
        ({"answer": True}, r".*found True"),
        ({"answer": "B"}, r".*found 'B'"),
        ({"answer": 1.5}, r".*found 1\.5"),
    ],
)
def test_a_bad_entry_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "q.jsonl", f"{json.dumps(GOOD)}\n{json.dumps(GOOD | change)}\n")
    with pytest.raises(InputError, match=rf"q\.jsonl, line 2: {message}"):
        read_questions(file)
    as_list = write(tmp_path / "q.json", json.dumps([GOOD, GOOD | change]))
    with pytest.raises(InputError, match=rf"q\.json, entry 2: {message}"):
        read_questions(as_list)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"holds no question; an entry is \{\"question\": text"),
        ("[]", "holds no question"),
        ("[1]", "entry 1: must be a JSON object"),
        ("[{]", r"line 1: not valid JSON"),
        ("{", r"line 1: not valid JSON"),
        (json.dumps(GOOD) + "\n\n" + json.dumps(GOOD), "line 2: the line is empty"),
        (json.dumps({"question": "q", "choices": list("abcd")}), "line 1: key 'answer' is missing; an entry is"),
    ],
)
def test_what_is_no_file_of_questions_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_questions(write(tmp_path / "q.jsonl", text))


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_questions(tmp_path / "q.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        read_questions(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_questions(tmp_path / "q.parquet")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_questions(write(tmp_path / "bad.parquet", "PAR"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9"}')
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 15\)"):
        read_questions(tmp_path / "latin.jsonl")
