"""`unlora data check`: what it prints is what a person needs before a run."""

import json
from pathlib import Path

import pytest

from tests.cli.commands import FORGET, RETAIN, error_line, unlora, write_lines
from tests.cli.conftest import Inputs
from tests.tiny import save_tiny


def test_prints_counts_lengths_duplicates_overlap_and_one_example(inputs: Inputs, tmp_path: Path):
    file = write_lines(tmp_path / "forget.jsonl", [*FORGET, FORGET[0], RETAIN[0]])
    result = unlora("data", "check", file, "--against", inputs.retain, "--model", inputs.model)
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == f"{file}: 4 examples (4 question_answer), template plain"
    assert lines[1].startswith("prompt tokens: ")
    assert lines[2].startswith("completion tokens: ")
    assert lines[3:] == [
        "truncated at 256 tokens: none",
        "duplicates: 1",
        f"  {file}, line 1 = {file}, line 3",
        f"also in {inputs.retain}: 1",
        f"  {file}, line 4 = {inputs.retain}, line 1",
        f"same question in {inputs.retain}: none",
        f"nearly the same in {inputs.retain}: none",
        "first example, scored between >>> and <<<:",
        "Question: Where was Mira Solberg born?",
        "Answer:>>> Mira Solberg was born in Bergen.<|end|><<<",
    ]


def test_json_is_one_object_with_everything(inputs: Inputs, tmp_path: Path):
    long = {"question": "Who?", "answer": "été " * 200}
    file = write_lines(tmp_path / "long.jsonl", [*RETAIN, {"text": "été " * 200}, long])
    result = unlora("data", "check", file, "--model", inputs.model, "--max-length", 100, "--json")
    report = json.loads(result.stdout)
    assert report["example_count"] == 5
    assert report["shape_counts"] == {"question_answer": 4, "text": 1}
    assert report["truncated"] == [f"{file}, line 5"]
    assert report["piece_count"] > 4 + 1000 / 99  # "été " has five bytes, none of which share a token
    lines = unlora("data", "check", file, "--model", inputs.model, "--max-length", 100).stdout.splitlines()
    assert f"in pieces of at most 100 tokens: {report['piece_count']}" in lines
    assert 80 < report["completion_tokens"]["maximum"] < 100
    assert report["tokenisation"]["max_length"] == 100


def test_chat_template_is_used_where_there_is_one(inputs: Inputs, tmp_path: Path):
    model = save_tiny(tmp_path / "chat", chat=True)
    assert "template chat" in unlora("data", "check", inputs.forget, "--model", model).stdout
    assert "template plain" in unlora("data", "check", inputs.forget, "--model", model, "--template", "plain").stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("none.jsonl",), "none.jsonl: no such file."),
        (("FORGET", "--against", "none.jsonl"), "none.jsonl: no such file."),
        (("FORGET", "--model", "./none"), "model './none': no such folder."),
        (("FORGET", "--template", "chat"), "this tokenizer has no chat template"),
        (("tofu:forget11",), "tofu:forget11: TOFU has no such split. Did you mean 'forget10'?"),
        (("tofu:forget01@./none",), "no such folder"),
    ],
)
def test_bad_input_is_refused(inputs: Inputs, arguments: tuple[str, ...], expected: str):
    replaced = [inputs.forget if argument == "FORGET" else argument for argument in arguments]
    assert expected in error_line(unlora("data", "check", "--model", inputs.model, *replaced))
