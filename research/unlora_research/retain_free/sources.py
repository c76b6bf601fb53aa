"""The sets whose gradients are compared: the forget set, the retain set, and what stands in its place."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedModel

from unlora.data.common_facts import common_facts
from unlora.data.records import Example
from unlora.importance.accumulate import Batch
from unlora.models.generate import Drawing, Writer, generate_samples
from unlora_research.measuring import MeasuredModel
from unlora_research.small_world import WorldPeople

BATCH_SIZE = 8
"""As a run measures."""
BARE_PROMPT = "Question: \nAnswer:"
"""The plain template without a question."""
SAMPLE_TOKENS = 48


class GradientSet(NamedTuple):
    """Batches, and the model whose gradients on them are meant."""

    model: PreTrainedModel
    batches: list[Batch]


class GradientSets(NamedTuple):
    """What a map and its reference are measured on."""

    forget: GradientSet
    retain: GradientSet
    divisor: GradientSet | None
    """None divides by nothing."""


def own_samples(target: MeasuredModel, forget: Sequence[Example], count: int, seed: int) -> tuple[list[Example], int]:
    """Answers that the model writes after a prompt without a question, drawn from its own distribution.

    A user knows whom the forget set is about: samples that name one of these people are dropped.

    Returns:
        The first `count` samples that are left, and how many were dropped before them.
    """
    names = {str(example.person) for example in forget}
    prompt = target.tokeniser.prompt_ids(Example("prompt_completion", BARE_PROMPT, " ", "bare prompt"))
    writer = Writer(target.model, target.tokeniser.tokenizer, target.tokeniser.pad_token_id, 3 * count)
    (texts,) = generate_samples(writer, [prompt], Drawing(3 * count, seed), SAMPLE_TOKENS)
    kept: list[Example] = []
    dropped = 0
    for number, text in enumerate(texts):
        if len(kept) == count:
            break
        if any(name in text for name in names):
            dropped += 1
        elif text.strip():
            kept.append(Example("prompt_completion", BARE_PROMPT, text, f"own sample {number}"))
    return kept, dropped


class Stock(NamedTuple):
    """What the sets of one world are drawn from."""

    target: MeasuredModel
    """The model that is to forget."""
    people: WorldPeople
    own: Sequence[Example]
    """What the target wrote."""
    retain_only: Path
    """Folder of the model that never learnt the forget set."""


def gradient_sets(source: str, stock: Stock, *, count: int, seed: int) -> GradientSets:
    """Draw the sets of one world.

    Args:
        source: a name of `SOURCES`.
        stock: what there is.
        count: of examples in every set but the forget set, or all where there are fewer.
        seed: of the draw.
    """
    target, people = stock.target, stock.people
    generator = random.Random(seed)

    def drawn(measured: MeasuredModel, examples: Sequence[Example]) -> GradientSet:
        some = generator.sample(examples, min(count, len(examples)))
        return GradientSet(measured.model, measured.batches(some, BATCH_SIZE))

    forget = GradientSet(target.model, target.batches(people.forget, BATCH_SIZE))
    retain = drawn(target, people.retain)
    match source:
        case "retain":
            divisor = retain
        case "own_samples":
            divisor = drawn(target, stock.own)
        case "generic":
            divisor = drawn(target, common_facts().examples)
        case "base":
            divisor = drawn(MeasuredModel.load(stock.retain_only, str(target.model.device)), people.forget)
        case _:
            divisor = None
    return GradientSets(forget, retain, divisor)
