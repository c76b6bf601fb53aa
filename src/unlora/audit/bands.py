"""Records that must stay, sorted by how close they are to what is forgotten."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer

from unlora.audit.subject import AuditSubject
from unlora.data.common_facts import common_facts
from unlora.data.records import Example, ExampleSet
from unlora.data.same import same_examples, seen

BANDS = ("same_person", "near", "middle", "far", "far_knowledge")
"""From the closest to the farthest."""
THIRDS = ("near", "middle", "far")

Similarity = Float[np.ndarray, " example"]


@dataclass(frozen=True)
class Neighbour:
    """A record that must stay."""

    band: str
    example: Example
    similarity: float
    """Cosine of the TF-IDF vectors with the closest forget record, in [0, 1]."""


def neighbours(subject: AuditSubject, *, limit: int) -> list[Neighbour]:
    """Choose up to `limit` records for each band; a band without records is left out.

    same_person: the records of the subject's `same_person` and those of the retain set whose `person` is one of the
    forget set. near, middle, far: the rest of the retain set in thirds by similarity. far_knowledge: general knowledge,
    which belongs to no set. A record that is itself to be forgotten is in no band.
    """
    forget = subject.forget.examples
    people = {example.person for example in subject.forget if example.person is not None}
    retain = _without(forget, subject.retain or ())
    own = [*_without(forget, subject.same_person or ()), *(one for one in retain if one.person in people)]
    own = list({seen(example).content: example for example in own}.values())
    retain = _without(own, retain)
    facts = _without(forget, common_facts())
    closeness = similarity(subject.forget, [*own, *retain, *facts])
    middle = closeness[len(own) : len(own) + len(retain)]
    names = ["same_person"] * len(own) + third_of(middle) + ["far_knowledge"] * len(facts)
    everyone = [
        Neighbour(name, example, float(value))
        for name, example, value in zip(names, [*own, *retain, *facts], closeness, strict=True)
    ]
    return [one for band in BANDS for one in evenly([one for one in everyone if one.band == band], limit)]


def similarity(forget: ExampleSet, examples: Sequence[Example]) -> Similarity:
    """Largest TF-IDF cosine similarity of each example, question and answer together, to any forget example.

    In [0, 1]; 0 without a common word. Words are weighted over all of them together; rounded, so that equal texts tie.
    """
    if not examples:
        return np.empty(0)
    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b")
    try:
        vectors = vectorizer.fit_transform([_text(example) for example in (*forget, *examples)])
    except ValueError:  # scikit-learn's word for: there is no word in any text
        return np.zeros(len(examples))
    closest = (vectors[len(forget) :] @ vectors[: len(forget)].T).max(axis=1)  # every vector has length 1
    return np.clip(closest.toarray().ravel(), 0, 1).round(12)


def third_of(values: Similarity) -> list[str]:
    """Cut into "near", "middle" and "far" by rank.

    Equal values share their mean rank, so the order of a file never decides between two bands; where many tie, a band
    may be larger than a third, or empty.
    """
    if not values.size:
        return []
    places = np.rint(2 * rankdata(-values, method="average")).astype(int) - 1  # odd numbers below 2 n
    return [THIRDS[third] for third in 3 * places // (2 * values.size)]


def evenly(members: Sequence[Neighbour], limit: int) -> list[Neighbour]:
    """Choose at most `limit`, evenly spaced from the most to the least similar: the middles of as many equal parts."""
    order = sorted(members, key=lambda one: -one.similarity)
    count = min(limit, len(order))
    return [order[(2 * place + 1) * len(order) // (2 * count)] for place in range(count)]


def _without(known: Sequence[Example], examples: Iterable[Example]) -> list[Example]:
    """The examples that are none of `known`, whatever their spelling or shape."""
    examples = list(examples)
    return [one for one, match in zip(examples, same_examples(examples, known), strict=True) if match is None]


def _text(example: Example) -> str:
    return f"{example.prompt} {example.completion}"
