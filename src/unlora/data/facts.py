"""One set of facts in two parts: what is seen, and what is held out to look whether it went too.

Deeb & Roger 2024 (arXiv 2410.08827) train on some facts T and test on independent facts V: what comes back of V was
never gone, what is lost of V was not only the sentences of T. A set is divided by name:

    facts:seen@SET, facts:held_out@SET                 half of SET each, drawn with seed 0
    facts:seen/0.8/people/3@SET                        80 % of it, nobody's facts on both sides, drawn with seed 3

SET is whatever names a set: a file, or tofu:forget10@FOLDER.
"""

import random
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from unlora.data.records import ExampleSet
from unlora.data.same import same_examples
from unlora.errors import InputError

SCHEME = "facts"
FORM = "facts:seen@SET or facts:held_out@SET, with /SHARE, /people and /SEED before the @ (facts:seen/0.8/people/3@SET)"

FactPart = Literal["seen", "held_out"]
By = Literal["records", "people"]


class DividedFacts(NamedTuple):
    """Both parts, each in the order of the whole."""

    seen: ExampleSet
    held_out: ExampleSet


@dataclass(frozen=True)
class FactSplit:
    """How facts are divided. The same split of the same facts gives the same parts."""

    share: float = 0.5
    """Of the records that are seen, in (0, 1)."""
    by: By = "records"
    """What stays in one piece: records that are the same in other words, or all that is about one person."""
    seed: int = 0

    def places(self, examples: ExampleSet) -> list[int]:
        """Say which examples are seen, by their places in ascending order.

        Raises:
            InputError: fewer than two facts or people, or a record that does not say whom it is about.
        """
        groups = self._groups(examples)
        if len(groups) < 2:
            raise InputError(
                f"{examples.name}: holds {len(groups)} of different {self.by}; a split needs two at least."
            )
        random.Random(self.seed).shuffle(groups)
        wanted, seen = self.share * len(examples), list(groups[0])
        for group in groups[1:-1]:  # each part has one group at least
            if len(seen) + len(group) / 2 > wanted:
                break
            seen += group
        return sorted(seen)

    def divide(self, examples: ExampleSet) -> DividedFacts:
        """Divide a set.

        Raises:
            InputError: as `places`.
        """
        seen = set(self.places(examples))
        parts = [
            ExampleSet(
                f"{part} facts of {examples.name}",
                tuple(one for place, one in enumerate(examples) if (place in seen) is (part == "seen")),
            )
            for part in ("seen", "held-out")
        ]
        return DividedFacts(*parts)

    def _groups(self, examples: ExampleSet) -> list[list[int]]:
        found: dict[object, list[int]] = {}
        if self.by == "people":
            for place, example in enumerate(examples):
                if example.person is None:
                    raise InputError(f"{example.source}: has no 'person', by which the facts are to be divided.")
                found.setdefault(example.person, []).append(place)
        else:
            for place, first in enumerate(same_examples(examples.examples, examples.examples)):
                found.setdefault(first, []).append(place)
        return list(found.values())


class NamedPart(NamedTuple):
    """What "facts:PART@SET" names."""

    part: FactPart
    split: FactSplit
    whole: str
    """The set that is divided, as it is named."""

    def take(self, whole: ExampleSet) -> ExampleSet:
        """The part of the whole.

        Raises:
            InputError: as `FactSplit.places`.
        """
        divided = self.split.divide(whole)
        return divided.seen if self.part == "seen" else divided.held_out


def read_part(spec: str) -> NamedPart | None:
    """Read what names a part of a set; None for another name.

    Raises:
        InputError: it begins so, and goes on as no such name does.
    """
    scheme, colon, rest = spec.partition(":")
    if scheme != SCHEME or not colon:
        return None
    name, _, whole = rest.partition("@")
    found = re.fullmatch(
        r"(?P<part>seen|held_out)(/(?P<share>0?\.\d+))?(/(?P<by>people|records))?(/(?P<seed>\d+))?", name
    )
    if found is None or not whole:
        raise InputError(f"{spec}: is not {FORM}.")
    share = float(found["share"] or FactSplit.share)
    if not share:
        raise InputError(f"{spec}: a share of 0 leaves nothing to see.")
    by: By = "people" if found["by"] == "people" else "records"
    part: FactPart = "seen" if found["part"] == "seen" else "held_out"
    return NamedPart(part, FactSplit(share, by, int(found["seed"] or 0)), whole)
