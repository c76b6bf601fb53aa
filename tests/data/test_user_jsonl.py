import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlora.data import user_jsonl
from unlora.data.records import Example, ExampleSet
from unlora.data.user_jsonl import parse_record, read_examples, to_jsonl
from unlora.errors import InputError

GOOD = b'{"question": "q", "answer": "a"}\n'


def _chat(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


def test_four_shapes_are_read(tmp_path: Path) -> None:
    lines = [
        {"question": "q", "answer": "a", "id": 7, "person": "Noor"},
        {"prompt": "p", "completion": " c", "source": {"page": 3}},
        {"messages": [*_chat("system", "user")["messages"], {"role": "assistant", "content": "a"}]},
        {"text": "all of it"},
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    question, prompt, chat, text = read_examples(path)
    assert (question.prompt, question.completion, question.person) == ("q", "a", "Noor")
    assert (prompt.prompt, prompt.completion, prompt.source) == ("p", " c", f"{path}, line 2")
    assert [turn["role"] for turn in chat.messages] == ["system", "user"]
    assert (chat.prompt, chat.completion) == ("x", "a")
    assert (text.prompt, text.completion) == ("", "all of it")


def test_tofu_keys_are_read() -> None:
    record = {"question": "q", "answer": "a", "paraphrased_answer": "pa", "perturbed_answer": ["x", "y"]}
    example = parse_record(record | {"paraphrased_question": "pq"}, "here")
    assert example.paraphrased_answer == "pa"
    assert example.paraphrased_question == "pq"
    assert example.perturbed_answers == ("x", "y")


def test_byte_order_mark_windows_newlines_and_line_separators_are_text(tmp_path: Path) -> None:
    """U+2028 is legal inside a JSON string and must not be taken for the end of a line."""
    path = tmp_path / "data.jsonl"
    line = '{"text": "one\u2028two"}'.encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n" + line + b"\r\n\r\n")
    assert [example.completion for example in read_examples(path)] == ["one\u2028two"] * 2


@pytest.mark.parametrize("answer", ["1953-03-12", "1953-03-12T10:30:00+02:00", "0142", "1e5", "true", "null", "NaN"])
def test_answer_that_looks_like_another_type_stays_text(answer: str, tmp_path: Path) -> None:
    """`datasets` and `pandas` guess a column's type from its values: a file of dates would become timestamps."""
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": answer}) + "\n")
    assert [example.completion for example in read_examples(path)] == [answer]


def test_row_with_a_date_in_place_of_text_is_refused() -> None:
    """What `datasets.load_dataset` makes of a column of dates."""
    with pytest.raises(InputError, match="row 3: 'answer' must be text, found datetime"):
        parse_record({"question": "q", "answer": datetime.datetime(1953, 3, 12)}, "row 3")


BAD_LINES = {
    "invalid JSON": (b'{"question": "q", "answer" "a"}', "not valid JSON"),
    "invalid number": (b'{"text": ' + b"9" * 5000 + b"}", "not JSON that can be read"),
    "key twice": (b'{"question": "Where?", "answer": "Here.", "answer": "There."}', "key 'answer' stands twice"),
    "key twice within": (
        b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
        "key 'content' stands twice in one object",
    ),
    "too many brackets": (b"[" * 200_000, "not JSON that can be read"),
    "empty line": (b"", "the line is empty"),
    "not UTF-8": (b'{"text": "caf\xe9"}', "not UTF-8"),
    "list": (b'[{"text": "a"}]', "must be a JSON object, found a list"),
    "text": (b'"a"', "found text"),
    "null": (b"null", "found null"),
    "no keys": (b"{}", "unknown shape"),
    "unknown shape": (b'{"input": "a", "output": "b"}', "unknown shape (keys found: 'input', 'output')"),
    "half a shape": (b'{"question": "a"}', "key 'answer' is missing"),
    "two shapes": (b'{"question": "a", "answer": "b", "text": "c"}', "two shapes at once (question/answer and text)"),
    "unknown key": (b'{"text": "a", "colour": "b"}', "unknown key 'colour' beside text"),
    "misspelt key": (b'{"text": "a", "persn": "b"}', "Did you mean 'person'?"),
    "TOFU key beside text": (b'{"text": "a", "paraphrased_answer": "b"}', "unknown key 'paraphrased_answer'"),
    "empty answer": (b'{"question": "a", "answer": ""}', "'answer' is empty"),
    "blank answer": (b'{"question": "a", "answer": " \\n"}', "'answer' is empty"),
    "empty question": (b'{"question": "", "answer": "a"}', "'question' is empty"),
    "empty completion": (b'{"prompt": "a", "completion": ""}', "'completion' is empty"),
    "empty text": (b'{"text": ""}', "'text' is empty"),
    "number": (b'{"question": "a", "answer": 5}', "'answer' must be text, found a number"),
    "boolean": (b'{"question": "a", "answer": true}', "'answer' must be text, found true or false"),
    "null answer": (b'{"question": "a", "answer": null}', "'answer' must be text, found null"),
    "object": (b'{"prompt": {}, "completion": "a"}', "'prompt' must be text, found an object"),
    "half a character": (b'{"text": "\\ud800"}', "surrogate"),
    "perturbed is text": (b'{"question": "a", "answer": "b", "perturbed_answer": "c"}', "must be a list of texts"),
    "perturbed is empty": (b'{"question": "a", "answer": "b", "perturbed_answer": [""]}', "is empty; write some text"),
    "messages is text": (b'{"messages": "hello"}', "'messages' must be a list of turns, found text"),
    "message is text": (b'{"messages": ["hello"]}', "every message must be an object"),
    "message without role": (b'{"messages": [{"content": "hello"}]}', "every message must be an object"),
    "no messages": (b'{"messages": []}', "must end with an assistant turn"),
    "last turn is the user's": (json.dumps(_chat("assistant", "user")).encode(), "must end with an assistant turn"),
    "answer to nothing": (json.dumps(_chat("assistant")).encode(), "must end with an assistant turn"),
    "empty turn": (b'{"messages": [{"role": "user", "content": ""}]}', "'content' is empty"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_line_is_refused_with_file_and_line(case: str, tmp_path: Path) -> None:
    line, reason = BAD_LINES[case]
    path = tmp_path / "forget.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    with pytest.raises(InputError) as caught:
        read_examples(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 2: ")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_empty_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"empty.jsonl, line 1: the file is empty"):
        read_examples(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.jsonl: no such file"):
        read_examples(tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="is a folder; give a file"):
        read_examples(tmp_path)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
TURNS = st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), min_size=1, max_size=3)
RECORDS = st.one_of(
    st.fixed_dictionaries(
        {"question": TEXT, "answer": TEXT},
        optional={
            "person": TEXT,
            "paraphrased_answer": TEXT,
            "paraphrased_question": TEXT,
            "perturbed_answer": st.lists(TEXT, min_size=1),
        },
    ),
    st.fixed_dictionaries({"prompt": st.one_of(st.just(""), TEXT), "completion": TEXT}, optional={"person": TEXT}),
    st.fixed_dictionaries({"text": TEXT}),
    st.builds(lambda turns, text: {"messages": [*turns, {"role": "assistant", "content": text}]}, TURNS, TEXT),
)


@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_writing_and_reading_gives_the_same_examples(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("round_trip") / "data.jsonl"
    examples: list[Example] = [
        parse_record(record, f"{path}, line {number}") for number, record in enumerate(records, start=1)
    ]
    to_jsonl(ExampleSet("any", tuple(examples)), path)
    assert list(read_examples(path)) == examples


def test_a_whole_corpus_in_one_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_jsonl, "LONGEST_LINE", 3 * 2**20)
    file = tmp_path / "x.jsonl"
    file.write_text('{"text": "a"}\n{"text": "' + "x " * 2**21 + '"}\n')
    with pytest.raises(InputError, match=r"x.jsonl, line 2: the line has 4 MiB, and the limit is 3; make several "):
        read_examples(file)


def test_pipe_and_device_are_refused(tmp_path: Path):
    """A pipe without a writer would be waited for, /dev/zero read for ever."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", Path("/dev/zero")):
        with pytest.raises(InputError, match="is a pipe or a device, not a file"):
            read_examples(path)
