"""The batches that a run will make, from its data alone: the same examples in the same order as the run itself."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from torch import Tensor

from unlora.data.make_tokeniser import make_tokeniser
from unlora.losses import NOT_SCORED
from unlora.models.load import load_tokenizer
from unlora.models.vocabulary import recorded_embedding_count
from unlora.run.level import stops_at_level
from unlora.run.sets import Sets, load_sets, tokenise_sets
from unlora.run.settings import UnlearnSettings
from unlora.run.starting import start_data
from unlora.run.training import Lesson
from unlora.starts.sizes import BatchShape
from unlora.starts.start import Start
from unlora.training.parts import BatchPlan, ForgetRetainCollator


class RunData(NamedTuple):
    """What of a run does not depend on how it is trained: read once, planned with several times."""

    lesson: Lesson
    sets: Sets


def read_run_data(settings: UnlearnSettings) -> RunData:
    """Read the data and turn it into tokens; the tokenizer is loaded, the model is not.

    Raises:
        InputError: as `unlearn` would, as far as objective, data and tokenizer are concerned.
    """
    lesson = Lesson(settings.objective)
    forget, retain = load_sets(settings.data)
    lesson.load()
    model = settings.model
    tokenizer = load_tokenizer(model.name, base=model.base, trust_remote_code=model.trust_remote_code)
    known = recorded_embedding_count(model.name, base=model.base, trust_remote_code=model.trust_remote_code)
    sets = tokenise_sets(make_tokeniser(settings.data, tokenizer, known), forget, retain)
    lesson.answer(sets, settings.seed)
    return RunData(lesson, sets)


def measured_shapes(start: Start, sets: Sets, seed: int) -> Iterator[BatchShape]:
    """The batches that the start is measured on; none where nothing is measured."""
    yield from map(shape_of, start.measured_batches(start_data(sets, seed)))


def training_shapes(settings: UnlearnSettings, reading: RunData, devices: int) -> Iterator[BatchShape]:
    """The batches of training, in the order of the data loader, each in as many shares as there are devices.

    Where training stops at a level, it may make fewer.
    """
    lesson, sets = reading
    epochs = settings.training.passes(len(sets.forget_tokens), to_level=stops_at_level(settings))
    pairs = lesson.pairs(sets, epochs=epochs, seed=settings.seed)
    plan = BatchPlan.of(lesson.objective)
    collator = ForgetRetainCollator(sets.tokeniser.pad_token_id, plan.parts, whole=plan.whole)
    items = (pairs[index] for index in range(len(pairs)))
    while batch := list(islice(items, settings.training.batch_size)):
        for device in range(devices):  # as `processes.share`; who gets nothing reads the first pair
            yield shape_of(collator(batch[device::devices] or batch[:1]))


def shape_of(batch: Mapping[str, Tensor]) -> BatchShape:
    """Rows, positions, and of how many of them the losses read the logits."""
    scored = batch["labels"] != NOT_SCORED
    return BatchShape(*scored.shape, scored=int(scored[:, 1:].sum()))
