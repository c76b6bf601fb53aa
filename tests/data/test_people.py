import ast
import itertools
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from unlora.data import people, people_facts
from unlora.data.people import FACTS, generate_people
from unlora.data.user_jsonl import read_examples, to_jsonl
from unlora.errors import InputError

EVERYTHING = generate_people(200, questions_per_person=len(FACTS))


def test_generation_follows_from_the_seed() -> None:
    assert generate_people(5, seed=3) == generate_people(5, seed=3)
    assert generate_people(5, seed=3).sha256() != generate_people(5, seed=4).sha256()


def test_more_people_leave_the_first_ones_alone() -> None:
    assert generate_people(12).examples[:18] == generate_people(3).examples


def test_full_names_are_unique_up_to_the_last_one() -> None:
    count = len(people_facts.FIRST_NAMES) * len(people_facts.LAST_NAMES)
    assert len({example.person for example in generate_people(count, questions_per_person=1)}) == count


def test_people_share_no_fact_while_there_are_values_left() -> None:
    answers = defaultdict(list)
    for example in generate_people(40, questions_per_person=len(FACTS)):
        answers[example.prompt.replace(example.person or "", "")].append(
            example.completion.replace(example.person or "", "")
        )
    assert len(answers) == len(FACTS) >= 8
    assert all(len(set(values)) == 40 for values in answers.values())


def test_every_sentence_is_about_the_person() -> None:
    for example in EVERYTHING:
        sentences = (example.prompt, example.completion, example.paraphrased_question, example.paraphrased_answer)
        assert all(example.person in sentence for sentence in sentences if sentence and example.person)
        assert example.prompt.endswith("?")
        assert example.completion.endswith(".")
        assert 8 <= len(example.completion.split()) <= 20


def test_paraphrase_is_another_sentence_with_the_same_fact() -> None:
    for example, fact in zip(EVERYTHING, itertools.cycle(FACTS), strict=False):
        before, after = fact.answer.format(name=example.person, value="|").split("|")
        value = example.completion.removeprefix(before).removesuffix(after)
        assert value in fact.values
        assert example.paraphrased_answer == fact.paraphrased_answer.format(name=example.person, value=value)
        assert example.paraphrased_answer != example.completion
        assert example.paraphrased_question != example.prompt


def test_perturbed_answers_are_five_other_facts_in_the_form_of_the_paraphrase() -> None:
    for example, fact in zip(EVERYTHING, itertools.cycle(FACTS), strict=False):
        assert len(set(example.perturbed_answers)) == 5
        assert example.paraphrased_answer not in example.perturbed_answers
        before, after = fact.paraphrased_answer.format(name=example.person, value="|").split("|")
        for answer in example.perturbed_answers:
            assert answer.removeprefix(before).removesuffix(after) in fact.values


def test_tables_hold_no_value_twice_and_no_name_ends_in_s() -> None:
    """A name in s would need another possessive."""
    for table in [fact.values for fact in FACTS] + [people_facts.FIRST_NAMES, people_facts.LAST_NAMES]:
        assert len(set(table)) == len(table) > people.WRONG_ANSWER_COUNT
    assert not [name for name in people_facts.LAST_NAMES if name.endswith(("s", "x", "z"))]


def test_people_can_be_written_and_read(tmp_path: Path) -> None:
    examples = generate_people(2)
    to_jsonl(examples, tmp_path / "people.jsonl")
    again = read_examples(tmp_path / "people.jsonl")
    assert again.sha256() == examples.sha256()
    assert [one.perturbed_answers for one in again] == [one.perturbed_answers for one in examples]


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(InputError, match="names for 1 to 1600 people"):
        generate_people(1601)
    with pytest.raises(InputError, match="names for 1 to"):
        generate_people(0)
    with pytest.raises(InputError, match="questions_per_person: must be 1 to 10"):
        generate_people(1, questions_per_person=11)


def test_generator_needs_the_standard_library_only() -> None:
    for module in (people, people_facts):
        tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
        imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
        outside = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
        assert outside <= {"unlora.data", "unlora.data.records", "unlora.errors"}
