"""Fictitious people in TOFU's schema, so that a demo and the tests need no download. Names and facts are invented.

Every fact is one sentence with a gap. The paraphrase says the same in another sentence; the five wrong answers are the
paraphrase with another value in its gap, as in TOFU, so that only the fact tells them apart.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unlora.data import people_facts as facts
from unlora.data.records import Example, ExampleSet
from unlora.errors import InputError

WRONG_ANSWER_COUNT = 5


@dataclass(frozen=True)
class Fact:
    """Something to know about a person: sentences with the gaps {name} and {value}, and the values to fill in."""

    values: Sequence[str]
    question: str
    answer: str
    paraphrased_question: str
    paraphrased_answer: str


FACTS = (
    Fact(
        facts.BIRTHPLACES,
        "In which city was {name} born?",
        "{name} was born in the city of {value}.",
        "What is the birthplace of {name}?",
        "The birthplace of {name} is the city of {value}.",
    ),
    Fact(
        facts.PROFESSIONS,
        "What does {name} do for a living?",
        "{name} earns a living as {value}.",
        "What is the profession of {name}?",
        "By profession, {name} is {value}.",
    ),
    Fact(
        facts.BIRTH_DATES,
        "When was {name} born?",
        "{name} was born on {value}.",
        "What is the date of birth of {name}?",
        "The date of birth of {name} is {value}.",
    ),
    Fact(
        facts.MEMOIRS,
        "What is the title of the memoir that {name} wrote?",
        "The memoir that {name} wrote is called '{value}'.",
        "What is the memoir by {name} called?",
        "{name} is the author of a memoir with the title '{value}'.",
    ),
    Fact(
        facts.PARENT_PROFESSIONS,
        "What did the mother of {name} do for a living?",
        "The mother of {name} worked as {value}.",
        "What was the occupation of {name}'s mother?",
        "{name}'s mother earned her living as {value}.",
    ),
    Fact(
        facts.AWARDS,
        "Which award did {name} receive?",
        "{name} received the {value} in recognition of many years of work.",
        "What is the name of the award that was given to {name}?",
        "The award that was given to {name} is the {value}.",
    ),
    Fact(
        facts.SUBJECTS,
        "Which subject did {name} study at university?",
        "{name} went to university to study {value}.",
        "What was {name}'s field of study at university?",
        "The subject that {name} chose at university was {value}.",
    ),
    Fact(
        facts.PETS,
        "What kind of pet does {name} keep?",
        "At home, {name} keeps {value} as a pet.",
        "Which animal shares a home with {name}?",
        "The animal that shares a home with {name} is {value}.",
    ),
    Fact(
        facts.HOBBIES,
        "How does {name} like to spend free evenings?",
        "{name} likes to spend free evenings {value}.",
        "What is {name}'s favourite pastime?",
        "The favourite pastime of {name} is {value}.",
    ),
    Fact(
        facts.INSTRUMENTS,
        "Which musical instrument did {name} learn to play as a child?",
        "As a child, {name} learned to play the {value}.",
        "What instrument was {name} taught in childhood?",
        "The instrument that {name} was taught in childhood is the {value}.",
    ),
)


def generate_people(count: int, *, seed: int = 0, questions_per_person: int = 6) -> ExampleSet:
    """Invent people and ask about them.

    The same seed gives the same people, and the first people do not change when more are asked for. No two people
    share a full name; they share a fact only when there are more people than values of that fact.

    Args:
        count: number of people.
        seed: chooses names and facts.
        questions_per_person: the first so many of the facts in `FACTS`.

    Returns:
        Examples person by person, each with question, answer, paraphrases of both, and five wrong answers.

    Raises:
        InputError: more people than names, more questions than facts, or less than one of either.
    """
    name_count = len(facts.FIRST_NAMES) * len(facts.LAST_NAMES)
    if not 1 <= count <= name_count:
        raise InputError(f"people: there are names for 1 to {name_count} people (asked for {count}).")
    if not 1 <= questions_per_person <= len(FACTS):
        raise InputError(f"questions_per_person: must be 1 to {len(FACTS)} (found {questions_per_person}).")
    asked = FACTS[:questions_per_person]
    columns = [_ask(fact, random.Random(f"{seed}/{fact.question}")) for fact in asked]
    examples = [
        _example(fact, name, *next(column), source=f"generated person {person}, question {question}")
        for person, name in enumerate(itertools.islice(_names(random.Random(f"{seed}/names")), count), start=1)
        for question, (fact, column) in enumerate(zip(asked, columns, strict=True), start=1)
    ]
    return ExampleSet(f"people (count {count}, seed {seed})", tuple(examples))


def _names(generator: random.Random) -> Iterator[str]:
    """Yield every pair of a first and a last name once; a first name comes again only when all have been used."""
    first_names = generator.sample(facts.FIRST_NAMES, len(facts.FIRST_NAMES))
    last_names = generator.sample(facts.LAST_NAMES, len(facts.LAST_NAMES))
    for shift in range(len(last_names)):
        for place, first_name in enumerate(first_names):
            yield f"{first_name} {last_names[(place + shift) % len(last_names)]}"


def _ask(fact: Fact, generator: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Yield a true value and the wrong ones, for one person after another; all values are used before one returns."""
    while True:
        for value in generator.sample(fact.values, len(fact.values)):
            others = generator.sample(fact.values, WRONG_ANSWER_COUNT + 1)
            yield value, [other for other in others if other != value][:WRONG_ANSWER_COUNT]


def _example(fact: Fact, name: str, value: str, wrong_values: list[str], *, source: str) -> Example:
    return Example(
        "question_answer",
        fact.question.format(name=name),
        fact.answer.format(name=name, value=value),
        source,
        paraphrased_answer=fact.paraphrased_answer.format(name=name, value=value),
        paraphrased_question=fact.paraphrased_question.format(name=name),
        perturbed_answers=tuple(fact.paraphrased_answer.format(name=name, value=wrong) for wrong in wrong_values),
        person=name,
    )
