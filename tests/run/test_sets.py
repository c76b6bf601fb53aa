"""Records that are to be forgotten and to be kept at once."""

import json
from pathlib import Path

import pytest

from tests.recipes.test_fine_tune import Heard
from tests.taught import Taught
from unlora.errors import InputError
from unlora.run.sets import load_sets


def data(taught: Taught, retain: Path):
    return taught.settings().data.model_copy(update={"retain": str(retain)})


def test_a_retain_set_that_holds_all_that_is_to_be_forgotten_is_refused(taught: Taught, tmp_path: Path):
    both = tmp_path / "both.jsonl"
    both.write_text(taught.retain.read_text() + taught.forget.read_text(), encoding="utf-8")
    with pytest.raises(InputError, match=r"data.retain: .*both.jsonl holds all 4 examples of .*forget.jsonl"):
        load_sets(data(taught, both))
    with pytest.raises(InputError, match="holds all 4 examples"):
        load_sets(data(taught, taught.forget))


def test_examples_in_both_sets_and_near_ones_are_said(taught: Taught, tmp_path: Path):
    first, second, *_ = [json.loads(line) for line in taught.forget.read_text().splitlines()]
    near = {**second, "answer": f"{second['answer']} Indeed."}
    shape = {"prompt": f"Question: {first['question']}", "completion": first["answer"]}
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(taught.retain.read_text() + json.dumps(shape) + "\n" + json.dumps(near) + "\n", encoding="utf-8")
    heard = Heard()
    forget, retain = load_sets(data(taught, mixed), heard)
    assert retain is not None
    assert (len(forget), len(retain)) == (4, 10)
    assert heard.lines[0].startswith("Warning: 2 of 4 forget examples are in the retain set too: ")
    assert f"{taught.forget}, line 1 = {mixed}, line 9" in heard.lines[0]


def test_two_sets_apart_say_nothing(taught: Taught):
    heard = Heard()
    load_sets(taught.settings().data, heard)
    assert heard.lines == []
