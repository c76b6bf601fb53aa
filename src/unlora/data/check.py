"""What is in a set of examples, before anything is trained on it."""

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from unlora.data.records import Example, ExampleSet
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
    truncated: tuple[str, ...]
    """Sources of the examples whose completion lost its end."""
    duplicates: tuple[tuple[str, ...], ...]
    """Groups of sources with the same content."""
    other_name: str | None
    """The set it was compared with."""
    overlap: tuple[tuple[str, str], ...]
    """Sources of the same content, here and in the other set."""
    same_question: tuple[tuple[str, str], ...]
    """Sources of the same question with another answer, here and in the other set."""
    decoded_example: str
    """The first example as the model sees it; what is scored stands between >>> and <<<."""

    def lines(self) -> list[str]:
        """The report for a person to read."""
        shapes = ", ".join(f"{count} {shape}" for shape, count in self.shape_counts.items())
        limit = self.tokenisation["max_length"]
        lines = [
            f"{self.name}: {self.example_count} examples ({shapes}), template {self.tokenisation['template']}",
            f"prompt tokens: {_span(self.prompt_tokens)}",
            f"completion tokens: {_span(self.completion_tokens)}",
            *_listed(f"truncated at {limit} tokens", self.truncated),
            *_listed("duplicates", [" = ".join(group) for group in self.duplicates]),
        ]
        if self.other_name is not None:
            lines += _listed(f"also in {self.other_name}", [" = ".join(pair) for pair in self.overlap])
            lines += _listed(f"same question in {self.other_name}", [" ~ ".join(pair) for pair in self.same_question])
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
    encoded = tokeniser.encode_set(examples)
    groups = _sources_by(Example.content_sha256, examples)
    overlap = _pairs(Example.content_sha256, examples, other or ())
    return DataReport(
        name=examples.name,
        example_count=len(examples),
        shape_counts=dict(Counter(example.shape for example in examples)),
        tokenisation=tokeniser.describe(),
        prompt_tokens=_summarise([example.prompt_length for example in encoded]),
        completion_tokens=_summarise([len(example.input_ids) - example.prompt_length for example in encoded]),
        truncated=tuple(example.source for example in encoded if example.truncated),
        duplicates=tuple(tuple(sources) for sources in groups.values() if len(sources) > 1),
        other_name=other.name if other is not None else None,
        overlap=overlap,
        same_question=tuple(pair for pair in _pairs(_question, examples, other or ()) if pair not in set(overlap)),
        decoded_example=_decode(encoded[0], tokeniser),
    )


def _question(example: Example) -> Hashable:
    """What is asked; None where nothing is."""
    turns = tuple((turn["role"], turn["content"]) for turn in example.messages)
    return (example.prompt, turns) if example.prompt else None


def _sources_by(key: Callable[[Example], Hashable], examples: Iterable[Example]) -> dict[Hashable, list[str]]:
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for example in examples:
        groups[key(example)].append(example.source)
    return groups


def _pairs(
    key: Callable[[Example], Hashable], examples: Iterable[Example], other: Iterable[Example]
) -> tuple[tuple[str, str], ...]:
    """Sources here, each with the first source in `other` that has the same key."""
    there = _sources_by(key, other)
    keys = ((example.source, key(example)) for example in examples)
    return tuple((source, there[value][0]) for source, value in keys if value is not None and value in there)


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
