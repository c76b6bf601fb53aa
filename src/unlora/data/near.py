"""Examples of two sets that are nearly the same: to forget the one and keep the other works against itself."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfVectorizer

from unlora.data.records import Example
from unlora.data.words import words

THRESHOLD = 0.8
"""Cosine similarity from which two examples count as nearly the same."""
LARGEST_WORK = 200_000_000
"""Products of two weights above which words that many examples share are left out of the search."""

ROWS = 256
"""Examples compared at a time, which bounds the memory."""


Vectors = Any
"""A sparse matrix (example, word), whose annotations scipy does not finish."""


class NearPair(NamedTuple):
    """An example, and the most similar one of the other set."""

    here: int
    there: int
    similarity: float
    """Cosine of the TF-IDF vectors of question and answer, in [0, 1]."""


def near_duplicates(examples: Sequence[Example], other: Sequence[Example]) -> list[NearPair]:
    """Find for each example the most similar one of `other`, where their similarity is at least 0.8.

    Words and pairs of neighbouring words count, each by how rare it is in both sets together: two questions that differ
    in a name alone are far apart, the same record told in slightly other words is near. Where both sets are so large
    that comparing all would take long, the commonest words do not make a pair a candidate.
    """
    texts = [" ".join(words(f"{one.prompt} {one.completion}")) for one in (*examples, *other)]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", lowercase=False, sublinear_tf=True)
    if not examples or not other:
        return []
    vectors: Vectors = csr_array(vectorizer.fit_transform(texts))
    here, there = vectors[: len(examples)], vectors[len(examples) :]
    kept = _affordable(here, there)
    by_word = csr_array(there[:, kept].T)
    return [
        pair
        for start in range(0, here.shape[0], ROWS)
        for pair in _nearest(here, there, csr_array(here[start : start + ROWS][:, kept] @ by_word), start)
    ]


def _affordable(here: Vectors, there: Vectors) -> np.ndarray:
    """Columns, the cheapest first, whose products stay within the largest work."""
    counts = (np.bincount(side.indices, minlength=side.shape[1]).astype(float) for side in (here, there))
    products = np.multiply(*counts)
    order = np.argsort(products, kind="stable")
    return np.sort(order[np.cumsum(products[order]) <= LARGEST_WORK])


def _nearest(here: Vectors, there: Vectors, shared: Vectors, start: int) -> Iterator[NearPair]:
    """For each row of `shared`, from `start` on in `here`: the most similar row of `there`, by all of their words."""
    best = np.asarray(shared.argmax(axis=1)).ravel()
    rows = here[start : start + shared.shape[0]]
    similarities = np.asarray(rows.multiply(there[best]).sum(axis=1)).ravel()
    for row in np.flatnonzero(similarities >= THRESHOLD):
        yield NearPair(start + int(row), int(best[row]), round(min(float(similarities[row]), 1.0), 4))
