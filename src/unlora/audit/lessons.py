"""What an attacker is taught, and which forget examples show whether it worked."""

import random
from dataclasses import dataclass

from unlora.audit.attackers import LessonName
from unlora.data.facts import By, FactSplit
from unlora.data.people import generate_people
from unlora.data.records import ExampleSet
from unlora.errors import InputError

UNRELATED_PEOPLE = 2
"""Fictitious people of "unrelated", six questions each: about what an attacker writes in ten minutes."""

MOST_RETAIN = 200
"""Retain records that an attacker is given at most."""


@dataclass(frozen=True)
class DrawnLesson:
    """What one attack trains on."""

    examples: ExampleSet
    tested: tuple[int, ...]
    """Indices into the forget set that are looked at."""


def draw_lesson(
    lesson: LessonName,
    forget: ExampleSet,
    retain: ExampleSet | None,
    *,
    fraction: float,
    seed: int,
    apart: By = "records",
) -> DrawnLesson:
    """Choose what is taught.

    Args:
        lesson: few, full, retain or unrelated.
        forget: the forget set, two examples at least.
        retain: what is to be kept.
        fraction: of the forget set, in "few".
        seed: of what is drawn.
        apart: in "few", whether records are drawn, or people with all that is about them.

    Raises:
        InputError: a lesson of retain records without any, or of people where the records name none, or one alone.
    """
    everything = tuple(range(len(forget)))
    draw = random.Random(seed)
    if lesson == "unrelated":
        return DrawnLesson(generate_people(UNRELATED_PEOPLE, seed=1000 + seed), everything)
    if lesson == "full":
        return DrawnLesson(forget, everything)
    if lesson == "retain":
        if not retain:
            raise InputError("relearning: there are no retain records to learn from.")
        kept = draw.sample(retain.examples, min(len(retain), MOST_RETAIN))
        return DrawnLesson(ExampleSet("retain", tuple(kept)), everything)
    if apart == "people":
        taught = FactSplit(fraction, apart, seed).places(forget)
    else:
        count = min(len(forget) - 1, max(1, round(fraction * len(forget))))
        taught = sorted(draw.sample(everything, count))
    examples = ExampleSet("few", tuple(forget.examples[index] for index in taught))
    return DrawnLesson(examples, tuple(index for index in everything if index not in taught))
