"""Forget sets that differ from what a model knows in one thing."""

import dataclasses
from typing import NamedTuple

from unlora.data.records import Example
from unlora_research.sanity.names import Kind
from unlora_research.small_world import WorldPeople, lessons


class ShiftedSets(NamedTuple):
    """A forget set, and what is learnt and kept beside it."""

    forget: list[Example]
    """Asked and measured."""
    lessons: list[Example]
    """The same in every wording that is learnt."""
    retain: list[Example]
    """Known before, kept while learning; in one wording."""


def shifted_sets(kind: Kind, people: WorldPeople) -> ShiftedSets:
    """A forget set that differs from what is known in one thing.

    topic: people whom the model never saw, asked as it is used to. template: facts that it knows, in a frame it never
    saw. token: questions that it knows; every answer ends in "!" where all others end in ".", so that one token's
    frequency goes from 0 to 1; the former answers are not kept, they would contradict.
    """
    if kind == "topic":
        forget = list(people.forget)
        return ShiftedSets(forget, [taught for one in forget for taught in lessons(one)], list(people.retain))
    count = len(people.forget)
    change = _framed if kind == "template" else _exclaimed
    known = people.retain[:count]
    taught = [change(wording) for one in known for wording in lessons(one)]
    retain = people.retain if kind == "template" else people.retain[count:]
    return ShiftedSets([change(one) for one in known], taught, list(retain))


def _framed(example: Example) -> Example:
    prompt, completion = f"For the record: {example.prompt}", f"The record says that {example.completion}"
    return dataclasses.replace(example, prompt=prompt, completion=completion)


def _exclaimed(example: Example) -> Example:
    return dataclasses.replace(example, completion=example.completion.removesuffix(".") + "!")
