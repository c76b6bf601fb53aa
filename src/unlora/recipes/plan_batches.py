"""The batches that a run will make, from its data alone: the same examples in the same order as the run itself."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from torch import Tensor

from unlora.data.collate import collate
from unlora.data.forget_retain import ForgetRetainPairs
from unlora.data.refusals import refuse_each
from unlora.data.tokenise import TokenisedExample
from unlora.importance.accumulate import Batch
from unlora.importance.published import paired_rows
from unlora.losses import NOT_SCORED, Objective
from unlora.models.load import load_tokenizer
from unlora.models.vocabulary import recorded_embedding_count
from unlora.recipes.plan_arithmetic import BatchShape
from unlora.recipes.sets import Sets, load_sets, make_tokeniser, tokenise_sets
from unlora.recipes.settings import CONTRAST, WEIGHTED, UnlearnSettings
from unlora.recipes.starting import measured_batches
from unlora.recipes.training import load_refusals, make_objective
from unlora.training.parts import ForgetRetainCollator, Plan


class Reading(NamedTuple):
    """What of a run does not depend on how it is trained: read once, planned with several times."""

    objective: Objective
    sets: Sets
    refused: list[TokenisedExample] | None


def read(settings: UnlearnSettings) -> Reading:
    """Read the data and turn it into tokens; the tokenizer is loaded, the model is not.

    Raises:
        InputError: as `unlearn` would, as far as objective, data and tokenizer are concerned.
    """
    objective = make_objective(settings.objective)
    forget, retain = load_sets(settings.data)
    refusals = load_refusals(objective, settings.objective)
    model = settings.model
    tokenizer = load_tokenizer(model.name, base=model.base, trust_remote_code=model.trust_remote_code)
    known = recorded_embedding_count(model.name, base=model.base, trust_remote_code=model.trust_remote_code)
    sets = tokenise_sets(make_tokeniser(settings.data, tokenizer, known), forget, retain)
    if refusals is None:
        return Reading(objective, sets, None)
    refused = refuse_each(sets.tokeniser, forget.examples, seed=settings.seed, refusals=refusals)
    return Reading(objective, sets, refused)


def measured_shapes(settings: UnlearnSettings, sets: Sets) -> Iterator[BatchShape]:
    """The batches of the importance stage; none where nothing is measured."""
    if settings.importance.initialisation not in WEIGHTED + CONTRAST:
        return
    if is_published(settings):
        yield from map(shape_of, _published_batches(settings, sets))
        return
    forget, retain, _ = measured_batches(settings, sets)
    yield from map(shape_of, forget)
    yield from map(shape_of, retain or ())


def training_shapes(settings: UnlearnSettings, reading: Reading) -> Iterator[BatchShape]:
    """The batches of training, in the order of the data loader."""
    sets, chosen = reading.sets, settings.training
    pairs = ForgetRetainPairs(
        sets.forget_tokens,
        sets.retain_tokens if reading.objective.retain is not None else None,
        refusals=reading.refused,
        epochs=chosen.epochs,
        seed=settings.seed,
    )
    collator = ForgetRetainCollator(sets.tokeniser.pad_token_id, Plan.of(reading.objective).parts)
    items = (pairs[index] for index in range(len(pairs)))
    while batch := list(islice(items, chosen.batch_size)):
        yield shape_of(collator(batch))


def shape_of(batch: Mapping[str, Tensor]) -> BatchShape:
    """Rows, positions, and how many of them the losses read."""
    scored = batch["labels"] != NOT_SCORED
    rows, length = scored.shape
    first = int(scored.any(dim=0).long().argmax())
    return BatchShape(rows, length, kept=length - max(first - 1, 0), scored=int(scored[:, 1:].sum()))


def is_published(settings: UnlearnSettings) -> bool:
    """Whether importance is measured by the released arithmetic."""
    return settings.importance.initialisation in WEIGHTED and settings.importance.arithmetic == "published"


def _published_batches(settings: UnlearnSettings, sets: Sets) -> Iterator[Batch]:
    chosen, forget, retain = settings.importance, sets.forget_tokens, sets.retain_tokens or []
    steps = paired_rows(len(forget), len(retain), chosen.passes, chosen.batch_size, settings.seed)
    for forget_rows, retain_rows in steps:
        yield collate([forget[row] for row in forget_rows], sets.tokeniser.pad_token_id)
        yield collate([retain[row] for row in retain_rows], sets.tokeniser.pad_token_id)
