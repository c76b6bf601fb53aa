import dataclasses
import json
import statistics

import pytest

from unlora.data.check import check_data
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError

from .conftest import TOKENIZERS

TOKENISER = ExampleTokeniser(TOKENIZERS["plain"], max_length=40)


def _set(name: str, *pairs: tuple[str, str]) -> ExampleSet:
    return ExampleSet(name, tuple(Example("question_answer", *pair, f"{name}, {i}") for i, pair in enumerate(pairs, 1)))


FORGET = _set("forget", ("Who?", "Noor."), ("Where?", "In Cusco."), ("Who?", "Noor."), ("When?", "May " * 60))
RETAIN = _set("retain", ("How?", "By boat."), ("Where?", "In Cusco."), ("Who?", "Kenji."))


def test_report_counts_what_is_there() -> None:
    report = check_data(FORGET, TOKENISER, RETAIN)
    assert report.shape_counts == {"question_answer": 4}
    assert report.truncated == ("forget, 4",)
    assert report.duplicates == (("forget, 1", "forget, 3"),)
    assert report.overlap == (("forget, 2", "retain, 2"),)
    assert report.same_question == (("forget, 1", "retain, 3"), ("forget, 3", "retain, 3"))
    lengths = [one.prompt_length for one in TOKENISER.encode_set(FORGET)]
    assert dataclasses.astuple(report.prompt_tokens) == (min(lengths), statistics.median(lengths), max(lengths))


def test_first_example_shows_what_is_scored() -> None:
    assert check_data(FORGET, TOKENISER).decoded_example == "Question: Who?\nAnswer:>>> Noor.<|end|><<<"


def test_texts_without_a_question_have_no_question_in_common() -> None:
    texts = [ExampleSet(name, (Example("text", "", f"Text of {name}", name),)) for name in "ab"]
    assert check_data(texts[0], TOKENISER, texts[1]).same_question == ()


def test_chats_with_the_same_last_turn_but_another_history_ask_something_else() -> None:
    tokeniser = ExampleTokeniser(TOKENIZERS["chat"], max_length=99)
    sets = []
    for name in ("Noor", "Kenji"):
        turns = ({"role": "user", "content": name}, {"role": "user", "content": "Who?"})
        sets.append(ExampleSet(name, (Example("messages", "Who?", name, name, messages=turns),)))
    assert check_data(sets[0], tokeniser, sets[1]).same_question == ()


def test_lines_say_it_in_words() -> None:
    text = "\n".join(check_data(FORGET, TOKENISER, RETAIN).lines())
    assert "forget: 4 examples (4 question_answer), template plain" in text
    assert "truncated at 40 tokens: 1\n  forget, 4" in text
    assert "duplicates: 1\n  forget, 1 = forget, 3" in text
    assert "also in retain: 1\n  forget, 2 = retain, 2" in text
    assert "same question in retain: 2" in text
    assert "retain" not in "\n".join(check_data(FORGET, TOKENISER).lines())


def test_long_lists_are_cut_in_words_but_not_in_json() -> None:
    report = check_data(ExampleSet("same", FORGET.examples[3:] * 8), TOKENISER)
    assert "  and 3 more" in report.lines()
    assert len(json.loads(json.dumps(report.to_json()))["truncated"]) == 8


def test_empty_set_is_refused() -> None:
    with pytest.raises(InputError, match="nothing: holds no example"):
        check_data(ExampleSet("nothing", ()), TOKENISER)
