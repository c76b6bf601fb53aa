"""The forget and the retain set of a run, as examples and as tokens."""

from collections.abc import Sequence
from typing import NamedTuple

from unlora.data.collate import collate
from unlora.data.long_text import document_count, in_pieces
from unlora.data.near import near_duplicates
from unlora.data.records import ExampleSet
from unlora.data.same import same_examples
from unlora.data.settings import DataSettings
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.errors import InputError
from unlora.run.reporter import SILENT, Reporter
from unlora.shapes import TokenIds

SHOWN_COUNT = 3
"""Examples named before "and n more"."""


class Sets(NamedTuple):
    """The examples of a run and their tokens; a long text is one example, in several pieces."""

    forget: ExampleSet
    retain: ExampleSet | None
    forget_tokens: list[TokenisedExample]
    retain_tokens: list[TokenisedExample] | None
    tokeniser: ExampleTokeniser


def load_sets(data: DataSettings, reporter: Reporter = SILENT) -> tuple[ExampleSet, ExampleSet | None]:
    """Load both sets; the second is None where nothing is to be retained. Say what stands in both.

    Raises:
        InputError: a file is not there or holds a bad line, or all that is to be forgotten is to be retained as well.
    """
    forget = load_examples(data.forget)
    if data.retain is None:
        return forget, None
    retain = load_examples(data.retain)
    same = in_both(forget, retain)
    if len(same) == len(forget):
        raise InputError(
            f"data.retain: {retain.name} holds all {len(forget)} examples of {forget.name} (the first: {same[0]}); "
            "training would teach them again: take them out of the retain set."
        )
    if same:
        reporter.say(
            f"Warning: {len(same)} of {len(forget)} forget examples are in the retain set too: {first_of(same)}"
        )
    near = near_duplicates(forget.examples, retain.examples)
    close = [f"{forget.examples[pair.here].source} ~ {retain.examples[pair.there].source}" for pair in near]
    if len(close) > len(same):
        reporter.say(
            f"Warning: {len(close)} forget examples have a near-duplicate in the retain set: {first_of(close)}"
        )
    return forget, retain


def in_both(forget: ExampleSet, retain: ExampleSet) -> list[str]:
    """Name each forget example that the retain set holds too, in whatever spelling or shape, and its place there."""
    matches = same_examples(forget.examples, retain.examples)
    pairs = [(one, retain.examples[match]) for one, match in zip(forget, matches, strict=True) if match is not None]
    return [f"{here.source} = {there.source}" for here, there in pairs]


def first_of(places: Sequence[str]) -> str:
    """Name the first places of a list, and say how many more there are."""
    return ", ".join(places[:SHOWN_COUNT]) + (
        f" and {len(places) - SHOWN_COUNT} more" if len(places) > SHOWN_COUNT else ""
    )


def tokenise_sets(tokeniser: ExampleTokeniser, forget_set: ExampleSet, retain_set: ExampleSet | None) -> Sets:
    """Turn both sets into tokens with one tokeniser.

    Raises:
        InputError: an example that cannot be tokenised, with its line.
    """
    retain_tokens = encode_in_pieces(tokeniser, retain_set) if retain_set is not None else None
    return Sets(forget_set, retain_set, encode_in_pieces(tokeniser, forget_set), retain_tokens, tokeniser)


def encode_in_pieces(tokeniser: ExampleTokeniser, examples: ExampleSet) -> list[TokenisedExample]:
    """Turn examples into tokens, plain texts beyond the length limit in pieces: then there are more than examples.

    Raises:
        InputError: an example that cannot be tokenised, with its line.
    """
    return tokeniser.encode_set(in_pieces(examples, tokeniser))


def content_hashes(sets: Sets) -> tuple[str, str | None]:
    """Hashes of both sets, for whatever is measured on them."""
    return sets.forget.sha256(), sets.retain.sha256() if sets.retain is not None else None


def describe_sets(sets: Sets) -> str:
    """One line that says what will be forgotten and what kept."""
    named = (("forget", sets.forget_tokens), ("retain", sets.retain_tokens))
    parts = [f"{name} {describe_tokens(tokens)}" for name, tokens in named if tokens is not None]
    return f"{'; '.join(parts)}; template {sets.tokeniser.template}"


def describe_tokens(tokens: list[TokenisedExample]) -> str:
    """How much there is of one set, how many pieces long texts gave, and what the length limit cut off."""
    completion = sum(len(example.input_ids) - example.prompt_length for example in tokens)
    documents = document_count(example.source for example in tokens)
    pieces = f" in {len(tokens)} pieces" if len(tokens) > documents else ""
    truncated = [example for example in tokens if example.truncated]
    note = ""
    if truncated:
        first = truncated[0]
        whole, used = len(first.input_ids) + first.lost_count, len(first.input_ids)
        note = f", {len(truncated)} truncated (first: {first.source}, {whole:,} tokens, {used:,} used)"
    return f"{documents} examples{pieces}, {completion} completion tokens{note}"


def probe_batch(sets: Sets) -> dict[str, TokenIds]:
    """A few forget and retain examples to compare logits on."""
    examples = sets.forget_tokens[:4] + (sets.retain_tokens or [])[:4]
    return collate(examples, sets.tokeniser.pad_token_id)
