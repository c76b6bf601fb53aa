"""Records that are nearly the same."""

import dataclasses

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from unlora.data import near
from unlora.data.near import near_duplicates
from unlora.data.records import Example
from unlora.data.words import words

NAMES = ("Ada Winter", "Bo Lind", "Cy Marsh", "Di Holm", "Eli Stone", "Fay Brook", "Gus Field", "Hal Wood")
PLACES = ("Turin", "Oslo", "Quito", "Lagos", "Perth", "Minsk", "Sofia", "Cusco")
ROWS = [
    Example("question_answer", f"Where was {name} born?", f"{name} was born in the old town of {place}.", name)
    for name, place in zip(NAMES, PLACES, strict=True)
]


def test_a_record_in_slightly_other_words_is_found_and_questions_of_one_form_are_not():
    changed = [
        dataclasses.replace(ROWS[0], completion="Ada Winter was born in the very old town of Turin."),
        dataclasses.replace(ROWS[5], prompt="Where exactly was Fay Brook born?"),
    ]
    assert [(pair.here, pair.there) for pair in near_duplicates(changed, ROWS)] == [(0, 0), (1, 5)]
    assert near_duplicates(ROWS[:4], ROWS[4:]) == []


def test_similarity_is_the_cosine_of_all_pairs():
    changed = [dataclasses.replace(one, completion=f"{one.completion} Indeed.") for one in ROWS]
    texts = [" ".join(words(f"{one.prompt} {one.completion}")) for one in (*changed, *ROWS)]
    vectors = (
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True).fit_transform(texts).toarray()
    )
    cosines = vectors[: len(ROWS)] @ vectors[len(ROWS) :].T
    for pair in near_duplicates(changed, ROWS):
        assert pair.there == np.argmax(cosines[pair.here])
        assert pair.similarity == pytest.approx(cosines[pair.here].max(), abs=1e-4)
    assert len(near_duplicates(changed, ROWS)) == len(ROWS)


def test_leaving_the_commonest_words_out_of_the_search_changes_no_similarity(monkeypatch: pytest.MonkeyPatch):
    changed = [dataclasses.replace(one, completion=f"{one.completion} Indeed.") for one in ROWS]
    whole = near_duplicates(changed, ROWS)
    monkeypatch.setattr(near, "LARGEST_WORK", 60)
    assert near_duplicates(changed, ROWS) == whole


def test_an_empty_set_has_none():
    assert near_duplicates([], ROWS) == near_duplicates(ROWS, []) == []
