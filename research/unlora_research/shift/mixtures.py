"""Forget sets of two parts, of which one is other text; and targets that were taught the other part as well."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unlora.data.common_facts import common_facts
from unlora.data.people import FACTS, generate_people
from unlora.data.records import Example
from unlora.models.save import save_model
from unlora_research.engine import Workplace
from unlora_research.measuring import MeasuredModel
from unlora_research.shift.grid import ShiftCell
from unlora_research.small_world import Curriculum, SmallWorld, learn_further, lessons, world_people


class Mixture(NamedTuple):
    """A forget set of two parts."""

    forget: list[Example]
    """Both, in random order, so that every other example is an independent half."""
    kept: list[Example]
    """The part that the world's target knows and its retain-only model never saw."""
    other: list[Example]


def mixture(kind: str, share: float, world: SmallWorld) -> Mixture:
    """Replace a share of the world's forget set.

    other_facts: about the people of the forget set, then of the retain set, facts beyond those of the world.
    other_people: more people, asked the same. other_text: general knowledge in short sentences.
    """
    forget = world_people(world).forget
    count = len(forget)
    replaced = round(share * count)
    generator = random.Random(f"{world.seed}/{kind}")
    kept = generator.sample(forget, count - replaced)
    other = generator.sample(_other_text(kind, count, world), replaced)
    return Mixture(generator.sample(kept + other, count), kept, other)


def _other_text(kind: str, count: int, world: SmallWorld) -> Sequence[Example]:
    known = world.questions_per_person
    if kind == "other_facts":
        every = generate_people(world.people, seed=world.seed, questions_per_person=len(FACTS)).examples
        held_out = {one.person for one in world_people(world).held_out}
        beyond = [one for place, one in enumerate(every) if place % len(FACTS) >= known]
        return [one for one in beyond if one.person not in held_out][:count]
    if kind == "other_people":
        more = world.people + world.forget_people
        return generate_people(more, seed=world.seed, questions_per_person=known).examples[-count:]
    return random.Random(world.seed).sample(common_facts().examples, count)


def teach_target(cell: ShiftCell, target: Path, parts: Mixture, place: Workplace) -> Path:
    """The world's own target, or one that learnt the other text as well, in the wording that is to be forgotten."""
    if not cell.learnt or not parts.other:
        return target
    folder = place.folder / "target"
    if not (folder / "config.json").is_file():
        model, tokeniser = MeasuredModel.load(target, place.device)
        known = (taught for part in world_people(cell.world) for one in part for taught in lessons(one))
        lesson = Curriculum(
            tokeniser.encode_set(parts.other),
            tokeniser.encode_set(known),
            epochs=cell.lesson_epochs,
            learning_rate=cell.lesson_rate,
            seed=cell.seed,
        )
        learn_further(model, lesson, pad_token_id=tokeniser.pad_token_id, folder=place.folder / "trainer")
        save_model(model, tokeniser.tokenizer, folder)
    return folder
