"""One set of facts in two parts."""

import json
from pathlib import Path

import pytest

from unlora.data.facts import FactSplit, read_part
from unlora.data.records import Example, ExampleSet
from unlora.data.sources import load_examples
from unlora.errors import InputError


def facts(count: int, people: int = 4) -> ExampleSet:
    words = "red green blue white black brown pink grey gold teal".split()
    return ExampleSet(
        "all",
        tuple(
            Example(
                "question_answer",
                f"What does {words[number % 10]} number {words[number // 10]} mean?",
                f"It means {words[-number % 7]} things of {words[number % 9]}",
                f"all.jsonl, line {number + 1}",
                person=f"person {number % people}",
            )
            for number in range(count)
        ),
    )


def texts(examples: ExampleSet) -> list[str]:
    return [one.prompt for one in examples]


def test_every_fact_is_in_one_part_and_the_draw_is_repeatable():
    whole = facts(40)
    seen, held_out = FactSplit(0.75).divide(whole)
    assert (len(seen), len(held_out)) == (30, 10)
    assert sorted(texts(seen) + texts(held_out)) == sorted(texts(whole))
    assert texts(seen) == [one for one in texts(whole) if one in texts(seen)]
    assert texts(FactSplit(0.75).divide(whole).seen) == texts(seen)
    assert texts(FactSplit(0.75, seed=1).divide(whole).seen) != texts(seen)


@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_on_both_sides(seed: int):
    seen, held_out = FactSplit(0.5, "people", seed).divide(facts(40))
    people = [{one.person for one in part} for part in (seen, held_out)]
    assert [len(one) for one in people] == [2, 2]
    assert not people[0] & people[1]


@pytest.mark.parametrize("seed", range(5))
def test_the_same_fact_in_other_letters_is_on_the_same_side(seed: int):
    whole = facts(6)
    first = whole.examples[0]
    again = Example("question_answer", first.prompt.upper(), first.completion + ".", "all.jsonl, line 7", person="x")
    seen = FactSplit(0.5, seed=seed).places(ExampleSet("all", (*whole.examples, again)))
    assert (0 in seen) == (6 in seen)


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_no_part_is_empty(share: float):
    assert all(len(part) == count for part, count in zip(FactSplit(share).divide(facts(2)), (1, 1), strict=True))


def test_a_set_that_cannot_be_divided_is_refused():
    with pytest.raises(InputError, match="all: holds 1 of different records; a split needs two at least"):
        FactSplit().divide(facts(1))
    with pytest.raises(InputError, match="all: holds 1 of different people"):
        FactSplit(by="people").divide(facts(5, people=1))
    nameless = ExampleSet("all", (Example("text", "", "some words", "all.jsonl, line 1"), *facts(3).examples))
    with pytest.raises(InputError, match=r"all.jsonl, line 1: has no 'person', by which"):
        FactSplit(by="people").divide(nameless)


def test_parts_are_named_where_sets_are_named(tmp_path: Path):
    file = tmp_path / "all.jsonl"
    rows = [{"question": one.prompt, "answer": one.completion, "person": one.person} for one in facts(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = load_examples(str(file))
    for name, split in {"": FactSplit(), "/0.8": FactSplit(0.8), "/.8/people/3": FactSplit(0.8, "people", 3)}.items():
        seen, held_out = split.divide(whole)
        assert load_examples(f"facts:seen{name}@{file}").examples == seen.examples
        assert load_examples(f"facts:held_out{name}@{file}").examples == held_out.examples
    named = read_part(f"facts:seen/7@tofu:forget10@{tmp_path}")
    assert named is not None
    assert (named.split, named.whole) == (FactSplit(seed=7), f"tofu:forget10@{tmp_path}")
    assert read_part("tofu:forget10") is None


@pytest.mark.parametrize("name", ["seen", "facts:sen@x", "facts:seen@", "facts:seen/2.0@x", "facts:seen/men@x"])
def test_a_name_of_another_form_is_refused(name: str):
    if not name.startswith("facts:"):
        assert read_part(name) is None
        return
    with pytest.raises(InputError, match=r"is not facts:seen@SET or facts:held_out@SET"):
        load_examples(name)
    with pytest.raises(InputError, match="leaves nothing to see"):
        load_examples("facts:seen/0.0@x")
