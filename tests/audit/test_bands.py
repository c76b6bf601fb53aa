"""Bands of distance, on hand-made records whose closeness is plain to see."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlora.audit.bands import Neighbour, evenly, neighbours, similarity, third_of
from unlora.audit.subject import AuditSubject
from unlora.data.common_facts import common_facts
from unlora.data.records import Example, ExampleSet


def example(text: str, *, person: str | None = None, number: int = 0) -> Example:
    question, _, answer = text.partition("? ")
    return Example("question_answer", f"{question}?", answer, f"line {number}", person=person)


def subject_with(subject: AuditSubject, forget: list[Example], retain: list[Example] | None, **more) -> AuditSubject:
    sets = {"forget": ExampleSet("forget", tuple(forget)), "same_person": None} | more
    return dataclasses.replace(subject, retain=None if retain is None else ExampleSet("retain", tuple(retain)), **sets)


def names(chosen: list[Neighbour], band: str) -> list[str]:
    return [one.example.source for one in chosen if one.band == band]


FORGET = [example("where was mira born? in bergen", person="mira"), example("who taught mira? anders", person="mira")]
RETAIN = [
    example("which river crosses lagos? the ogun", number=1),
    example("where was tomas born? in lagos", number=2),
    example("who taught tomas? chidi", number=3),
    example("where was lena born? in bergen", number=4),
    example("how tall can oaks grow? forty metres", number=5),
    example("what eats grass? cows", number=6),
]


def test_thirds_follow_the_words_shared_with_the_closest_forget_record(subject: AuditSubject):
    """4 and 2 share a sentence with a forget record, 3 most of one, 1, 5 and 6 not a single word: they tie."""
    chosen = neighbours(subject_with(subject, FORGET, RETAIN), limit=40)
    assert names(chosen, "near") == ["line 4", "line 2"]
    assert names(chosen, "middle") == ["line 3"]
    assert set(names(chosen, "far")) == {"line 1", "line 5", "line 6"}
    similar = {one.example.source: one.similarity for one in chosen if one.band != "far_knowledge"}
    assert similar["line 4"] > similar["line 2"] > 0
    assert [similar[f"line {number}"] for number in (1, 5, 6)] == [0, 0, 0]


def test_similarity_equals_tf_idf_by_hand():
    """Texts a b, a c, d: idf = ln((1 + n) / (1 + count)) + 1 of n = 3 texts, then cosine."""
    forget = ExampleSet("forget", (Example("text", "", "a b", ""),))
    found = similarity(forget, [Example("text", "", "a c", ""), Example("prompt_completion", "d", "", "")])
    twice, once = math.log(4 / 3) + 1, math.log(4 / 2) + 1
    assert found == pytest.approx([twice**2 / (twice**2 + once**2), 0.0])


def test_similarity_is_to_the_closest_record_and_1_for_the_same_text():
    forget = ExampleSet("forget", tuple(FORGET))
    assert similarity(forget, [FORGET[1], FORGET[0]]) == pytest.approx([1, 1])
    assert similarity(forget, []).shape == (0,)
    marks = ExampleSet("forget", (Example("text", "", "?!", ""),))
    assert similarity(marks, [Example("text", "", "...", "")]).tolist() == [0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([0.5], ["middle"]),
        ([0.1, 0.9, 0.5], ["far", "near", "middle"]),
        ([0.0, 0.6, 0.5, 0.4, 0.3, 0.2], ["far", "near", "near", "middle", "middle", "far"]),
        ([0.2, 0.2, 0.2, 0.2], ["middle"] * 4),
        ([0.9, 0.0, 0.0, 0.0, 0.0, 0.0], ["near", *["middle"] * 5]),
        ([0.9, 0.8, 0.7, 0.0, 0.0, 0.0], ["near", "near", "middle", "far", "far", "far"]),
    ],
)
def test_thirds_by_hand(values: list[float], expected: list[str]):
    assert third_of(np.array(values)) == expected


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_ties_never_stand_in_two_bands_and_order_does_not_matter(levels: list[int]):
    values = np.array(levels, dtype=float)
    found = dict(zip(levels, third_of(values), strict=True))
    assert third_of(values) == [found[level] for level in levels]
    assert third_of(values[::-1]) == third_of(values)[::-1]
    order = {"near": 0, "middle": 1, "far": 2}
    places = [order[found[level]] for level in sorted(found, reverse=True)]
    assert places == sorted(places)


@given(st.integers(1, 60))
def test_without_ties_the_bands_are_thirds(count: int):
    sizes = Counter(third_of(np.arange(count) / count))
    assert all(abs(sizes[band] - count / 3) < 1 for band in ("near", "middle", "far"))


def test_same_person_comes_from_its_own_set_and_from_the_retain_set(subject: AuditSubject):
    own = example("what pet has mira? a parrot", person="mira", number=7)
    other = example("what does mira eat? fish", person="mira", number=8)
    stranger = example("what does lena eat? fish", person="lena", number=9)
    both = subject_with(subject, FORGET, [*RETAIN, own, stranger], same_person=ExampleSet("own", (other, own)))
    chosen = neighbours(both, limit=40)
    assert sorted(names(chosen, "same_person")) == ["line 7", "line 8"]
    assert "line 9" in [*names(chosen, "near"), *names(chosen, "middle"), *names(chosen, "far")]
    found = neighbours(subject_with(subject, FORGET, [*RETAIN, own, stranger]), limit=40)
    assert names(found, "same_person") == ["line 7"]
    nobody = [dataclasses.replace(one, person=None) for one in FORGET]
    without_names = [dataclasses.replace(one, person=None) for one in [*RETAIN, own]]
    assert names(neighbours(subject_with(subject, nobody, without_names), limit=40), "same_person") == []


def test_what_is_forgotten_is_in_no_band(subject: AuditSubject):
    fact = common_facts().examples[5]
    chosen = neighbours(subject_with(subject, [*FORGET, fact], [*RETAIN, FORGET[0]]), limit=100)
    asked = [one.example.prompt for one in chosen]
    assert FORGET[0].prompt not in asked
    assert fact.prompt not in asked
    assert len(asked) == len(set(asked)) == len(RETAIN) + 65


def test_without_a_retain_set_general_knowledge_is_left(subject: AuditSubject):
    chosen = neighbours(subject_with(subject, FORGET, None), limit=40)
    assert Counter(one.band for one in chosen) == {"far_knowledge": 40}


def test_chosen_members_are_spread_evenly_by_similarity():
    members = [Neighbour("near", example("a? b", number=place), place / 10) for place in range(10)]
    assert [one.similarity for one in evenly(members, 5)] == [0.8, 0.6, 0.4, 0.2, 0.0]
    assert [one.similarity for one in evenly(members, 2)] == [0.7, 0.2]
    assert [one.similarity for one in evenly(members, 10)] == [place / 10 for place in range(9, -1, -1)]
    assert evenly(members, 99) == evenly(members, 10)
    assert evenly([], 3) == []
