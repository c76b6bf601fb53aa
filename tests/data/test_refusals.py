from pathlib import Path

import pytest

from tests.tiny import build_tiny_tokenizer
from unlora.data.records import Example
from unlora.data.refusals import REFUSAL_TEXTS, read_refusals, refuse_each
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError

TOKENISER = ExampleTokeniser(build_tiny_tokenizer(chat=True), template="plain", max_length=128)
QUESTIONS = [Example("question_answer", f"Where was person {n} born?", "In Bergen.", f"line {n}") for n in range(40)]


def test_refusals_are_different_sentences() -> None:
    assert len(set(REFUSAL_TEXTS)) == len(REFUSAL_TEXTS) == 20
    assert all(text == text.strip() and text.endswith(".") for text in REFUSAL_TEXTS)


def test_prompt_stays_and_a_refusal_follows() -> None:
    answered = TOKENISER.encode_set(QUESTIONS)
    refused = refuse_each(TOKENISER, QUESTIONS, seed=0)
    for before, after in zip(answered, refused, strict=True):
        assert after.prompt_length == before.prompt_length
        assert after.input_ids[: after.prompt_length] == before.input_ids[: before.prompt_length]
        text = TOKENISER.tokenizer.decode(after.input_ids[after.prompt_length :], skip_special_tokens=True)
        assert text.strip() in REFUSAL_TEXTS
        assert after.input_ids[-1] == before.input_ids[-1]  # the end token
    assert len({example.input_ids[example.prompt_length :] for example in refused}) > 10


def test_draw_follows_from_the_seed() -> None:
    assert refuse_each(TOKENISER, QUESTIONS, seed=1) == refuse_each(TOKENISER, QUESTIONS, seed=1)
    assert refuse_each(TOKENISER, QUESTIONS, seed=1) != refuse_each(TOKENISER, QUESTIONS, seed=2)


def test_every_shape_with_a_prompt_can_be_refused() -> None:
    turns = ({"role": "user", "content": "Where was she born?"},)
    examples = [
        Example("prompt_completion", "She was born in", " Bergen", "line 1"),
        Example("prompt_completion", "She was born in ", "Bergen", "line 2"),
        Example("messages", turns[-1]["content"], "In Bergen.", "line 3", messages=turns),
    ]
    refused = refuse_each(TOKENISER, examples, seed=0, refusals=["No idea."])
    texts = [TOKENISER.tokenizer.decode(example.input_ids) for example in refused]
    assert texts[0] == "She was born in No idea.<|end|>"
    assert texts[1] == "She was born in No idea.<|end|>"
    assert texts[2] == "[user] Where was she born?<|end|>\n[assistant] No idea.<|end|>"


def test_plain_text_cannot_be_refused() -> None:
    with pytest.raises(InputError, match="line 7: plain text has no prompt that a refusal could answer"):
        refuse_each(TOKENISER, [QUESTIONS[0], Example("text", "", "A book.", "line 7")], seed=0)


def test_own_refusals_are_read(tmp_path: Path) -> None:
    file = tmp_path / "refusals.jsonl"
    file.write_text('{"answer": "Weiß ich nicht."}\n{"answer": "Pass."}\n', encoding="utf-8")
    assert read_refusals(file) == ("Weiß ich nicht.", "Pass.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; give lines such as"),
        ('{"answer": "x"}\n{"anwser": "y"}\n', "line 2: must hold one key, 'answer', with some text"),
        ('{"answer": " "}\n', "line 1: must hold one key"),
        ('{"answer": 3}\n', "line 1: must hold one key"),
        ('{"answer": "x", "id": 1}\n', "line 1: must hold one key"),
        ("[1]\n", "line 1"),
    ],
)
def test_wrong_file_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "refusals.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_refusals(file)
    with pytest.raises(InputError, match="no such file"):
        read_refusals(tmp_path / "none.jsonl")
