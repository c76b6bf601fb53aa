"""What is in a set of examples, before anything is trained on it."""

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unlora.data.long_text import in_pieces
from unlora.data.near import near_duplicates
from unlora.data.records import Example, ExampleSet
from unlora.data.same import Seen, same_seen, seen
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.errors import InputError

SHOWN_COUNT = 5
"""Sources listed by `DataReport.lines` before "and n more"; `to_json` has them all."""


@dataclass(frozen=True)
class LengthSummary:
    """Lengths in tokens."""

    minimum: int
    median: float
    maximum: int


@dataclass(frozen=True)
class DataReport:
    """What `check_data` saw."""

    name: str
    example_count: int
    shape_counts: dict[str, int]
    tokenisation: dict[str, Any]
    """`ExampleTokeniser.describe()`."""
    prompt_tokens: LengthSummary
    completion_tokens: LengthSummary
    """After truncation."""
    piece_count: int
    """Sequences that the examples give: texts beyond the length limit are cut into several."""
    truncated: tuple[str, ...]
    """Sources of the examples whose completion lost its end."""
    duplicates: tuple[tuple[str, ...], ...]
    """Groups of sources with the same question and answer, whatever their spelling or shape."""
    other_name: str | None
    """The set it was compared with."""
    overlap: tuple[tuple[str, str], ...]
    """Sources of the same record, here and in the other set."""
    same_question: tuple[tuple[str, str], ...]
    """Sources of the same question with another answer, here and in the other set."""
    near_duplicates: tuple[tuple[str, str, float], ...]
    """Sources of two records that are nearly the same, here and in the other set, with their similarity in [0, 1]."""
    decoded_example: str
    """The first example as the model sees it; what is scored stands between >>> and <<<."""

    def lines(self) -> list[str]:
        """The report for a person to read."""
        shapes = ", ".join(f"{count} {shape}" for shape, count in self.shape_counts.items())
        limit = self.tokenisation["max_length"]
        pieces = f"in pieces of at most {limit} tokens: {self.piece_count}"
        lines = [
            f"{self.name}: {self.example_count} examples ({shapes}), template {self.tokenisation['template']}",
            f"prompt tokens: {_span(self.prompt_tokens)}",
            f"completion tokens: {_span(self.completion_tokens)}",
            *([pieces] if self.piece_count > self.example_count else []),
            *_listed(f"truncated at {limit} tokens", self.truncated),
            *_listed("duplicates", [" = ".join(group) for group in self.duplicates]),
        ]
        if self.other_name is not None:
            lines += _listed(f"also in {self.other_name}", [" = ".join(pair) for pair in self.overlap])
            lines += _listed(f"same question in {self.other_name}", [" ~ ".join(pair) for pair in self.same_question])
            near = [f"{here} ~ {there} ({similarity:.2f})" for here, there, similarity in self.near_duplicates]
            lines += _listed(f"nearly the same in {self.other_name}", near)
        return [*lines, "first example, scored between >>> and <<<:", self.decoded_example]

    def to_json(self) -> dict[str, Any]:
        """The whole report as JSON values."""
        return dataclasses.asdict(self)


def check_data(examples: ExampleSet, tokeniser: ExampleTokeniser, other: ExampleSet | None = None) -> DataReport:
    """Look through `examples` as they will be used.

    Args:
        examples: the set.
        tokeniser: fixes template and length limit.
        other: another set, such as the retain set, to compare with.

    Raises:
        InputError: no example at all, or one that cannot be tokenised; names its line.
    """
    if not len(examples):
        raise InputError(f"{examples.name}: holds no example.")
    encoded = tokeniser.encode_set(in_pieces(examples, tokeniser))
    read = [seen(example) for example in examples]
    groups = _sources_by([one.content for one in read], examples)
    compared = SetComparison.of(examples.examples, read, other.examples if other is not None else ())
    return DataReport(
        name=examples.name,
        example_count=len(examples),
        shape_counts=dict(Counter(example.shape for example in examples)),
        tokenisation=tokeniser.describe(),
        prompt_tokens=_summarise([example.prompt_length for example in encoded]),
        completion_tokens=_summarise([len(example.input_ids) - example.prompt_length for example in encoded]),
        piece_count=len(encoded),
        truncated=tuple(example.source for example in encoded if example.truncated),
        duplicates=tuple(tuple(sources) for sources in groups.values() if len(sources) > 1),
        other_name=other.name if other is not None else None,
        overlap=compared.same,
        same_question=compared.same_question,
        near_duplicates=compared.near,
        decoded_example=_decode(encoded[0], tokeniser),
    )


class SetComparison(NamedTuple):
    """Pairs of sources, here and in another set; no example stands in more than one of the three."""

    same: tuple[tuple[str, str], ...]
    same_question: tuple[tuple[str, str], ...]
    near: tuple[tuple[str, str, float], ...]

    @classmethod
    def of(cls, examples: Sequence[Example], read: Sequence[Seen], other: Sequence[Example]) -> "SetComparison":
        """Compare every example, of which `read` is what a model reads, with all of `other`."""
        there = [seen(one) for one in other]
        matches = same_seen(read, there)
        asked = {one.question: example.source for one, example in reversed(list(zip(there, other, strict=True)))}
        same: list[tuple[str, str]] = []
        same_question: list[tuple[str, str]] = []
        rest: list[Example] = []
        for example, one, match in zip(examples, read, matches, strict=True):
            if match is not None:
                same.append((example.source, other[match].source))
            elif one.question and one.question in asked:
                same_question.append((example.source, asked[one.question]))
            else:
                rest.append(example)
        near = tuple(
            (rest[pair.here].source, other[pair.there].source, pair.similarity) for pair in near_duplicates(rest, other)
        )
        return cls(tuple(same), tuple(same_question), near)


def _sources_by(keys: Iterable[Hashable], examples: Iterable[Example]) -> dict[Hashable, list[str]]:
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for key, example in zip(keys, examples, strict=True):
        groups[key].append(example.source)
    return groups


def _summarise(lengths: list[int]) -> LengthSummary:
    return LengthSummary(min(lengths), float(statistics.median(lengths)), max(lengths))


def _decode(example: TokenisedExample, tokeniser: ExampleTokeniser) -> str:
    prompt = tokeniser.tokenizer.decode(list(example.input_ids[: example.prompt_length]))
    completion = tokeniser.tokenizer.decode(list(example.input_ids[example.prompt_length :]))
    return f"{prompt}>>>{completion}<<<"


def _span(summary: LengthSummary) -> str:
    return f"{summary.minimum} to {summary.maximum}, median {summary.median:g}"


def _listed(title: str, entries: Sequence[str]) -> list[str]:
    more = [f"  and {len(entries) - SHOWN_COUNT} more"] if len(entries) > SHOWN_COUNT else []
    return [f"{title}: {len(entries) or 'none'}", *(f"  {entry}" for entry in entries[:SHOWN_COUNT]), *more]
