"""Carry out one deletion request on top of all that are in force, and write it down."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from unlora.adapters.anchored import experts_among
from unlora.adapters.export import load_trained_adapter, write_adapter
from unlora.artifacts import json_sha256, read_json_object
from unlora.data.records import ExampleSet
from unlora.errors import InputError, UnloraError
from unlora.ledger.book import ADVICE, WORK, Ledger, hashes_below
from unlora.ledger.compose import (
    Update,
    plain_update,
    read_update,
    request_adapter,
    sum_of,
    updates_below,
    write_composition,
    write_request,
)
from unlora.ledger.entries import Composition, LedgerEntry, Request
from unlora.ledger.record_hashes import hashed_set
from unlora.level import Settled
from unlora.locks import alone_in
from unlora.models.adapter_target import is_adapter, plain_base
from unlora.models.load import LoadedModel, load_tokenizer
from unlora.models.merge import compare_logits, probe_logits
from unlora.models.old_readers import save_tokenizer
from unlora.models.quantised import quantisation_of
from unlora.recipes.cache import chosen_entries, remove_entries
from unlora.recipes.ledger.ask import ask_both
from unlora.recipes.ledger.begin import load_the_model
from unlora.recipes.unlearn import unlearn
from unlora.run.level import with_fixed_source
from unlora.run.loading import load
from unlora.run.reporter import SILENT, Reporter
from unlora.run.sets import first_of, in_both, load_sets
from unlora.run.settings import ModelSettings, UnlearnSettings
from unlora.run.starting import chosen_start
from unlora.run.targets import choose_targets

ForgetAndRetain = tuple[ExampleSet, ExampleSet | None]
"""The records to forget, and those to keep."""


class Addition(NamedTuple):
    """One request, as it is to be carried out."""

    settings: UnlearnSettings
    sets: ForgetAndRetain
    joined: list[int]
    """Requests in force that it takes the place of."""
    stay: list[int]
    """Those that stay as they are."""


def add_request(
    folder: Path, settings: UnlearnSettings, *, join: bool = False, reporter: Reporter = SILENT
) -> LedgerEntry:
    """Unlearn on top of what is there, compose the adapters anew, and add an entry.

    Ended early, the same call goes on where it stopped; until the entry is there, the ledger is as it was.

    Args:
        folder: of the ledger.
        settings: of an unlearning run on the ledger's own model (`Ledger.model_settings`).
        join: take the place of the requests in force whose records are all among these: their updates are taken out,
            and everything is unlearned anew, on top of the others alone.
        reporter: where words and progress go.

    Returns:
        The entry; its number is the request's.

    Raises:
        InputError: wrong settings or data, no request to join, a retain set that would teach again what was forgotten,
            another model, a file of the ledger that was changed, or another process at work in it.
        UnloraError: the work failed, or the composed adapter computes something else than what was trained.
    """
    with alone_in(folder, advice=ADVICE):
        book = Ledger(folder)
        book.refuse_changed()
        if settings.model.quantisation is not None:
            raise InputError("model.quantisation: a ledger composes on full-precision weights; leave it out.")
        sets = load_sets(settings.data, reporter)
        done = found_done(book, settings, sets, reporter, join=join)
        if done is not None:
            return done
        addition = plan_addition(book, settings, sets, join=join)
        refuse_taught_again(book, addition, reporter)
        refuse_experts(settings, load_the_model(book, settings.model, reporter))
        book.tidy()
        place = book.path / WORK / _short(made_from(book, addition, book.composed))
        started = start_from(book, addition, place)
        unlearn(started, place / "run", reporter=reporter)
        expected = probe_logits(load_trained_adapter(load(started.model).model, place / "run" / "adapter"))
        # Loaded anew, so that no second model lay in memory while the first was trained.
        entry = record_run(book, addition, place / "run", load_the_model(book, settings.model, reporter), expected)
        clear(book, place, reporter)
    return entry


def plan_addition(book: Ledger, settings: UnlearnSettings, sets: ForgetAndRetain, *, join: bool) -> Addition:
    """Find out which requests stay as they are.

    Raises:
        InputError: others are to be joined, and the records hold those of none.
    """
    joined = book.held_by(hashed_set(book.beginning.salt, sets[0])) if join else []
    if join and not joined:
        raise InputError(
            f"{settings.data.forget}: holds all records of no request in force, so there is none to join; put the "
            "records of several requests into one file."
        )
    return Addition(settings, sets, joined, [one.entry for one in book.in_force if one.entry not in joined])


def refuse_taught_again(book: Ledger, addition: Addition, reporter: Reporter) -> None:
    """Refuse a retain set that holds a record of this request, or of one in force: training would teach it again.

    A question that was asked there, with another answer, is said: it may be what is true now, or the same in other
    words. So is a record that was forgotten before: forgetting it again does no harm.

    Raises:
        InputError: naming the record and the request.
    """
    forget, retain = addition.sets
    forgotten = book.forgotten()
    both = in_both(forget, retain) if retain is not None else []
    if both:
        raise InputError(f"{both[0]}: the record is to be forgotten and in the retain set too; take it out there.")
    asked: list[str] = []
    for example in retain or ():
        request = forgotten.record(example)
        if request is not None:
            raise InputError(
                f"{example.source}: was forgotten by request {request} of this ledger, and training would teach it "
                "again; take it out of the retain set."
            )
        request = forgotten.question(example)
        if request is not None:
            asked.append(f"{example.source} (request {request})")
    if asked:
        reporter.say(f"Warning: {len(asked)} retain examples ask what forgotten records ask: {first_of(asked)}")
    found = [(one.source, forgotten.record(one)) for one in forget]
    again = [f"{source} (request {number})" for source, number in found if number in addition.stay]
    if again:
        reporter.say(f"{len(again)} of {len(forget)} records are forgotten already: {first_of(again)}")


def refuse_experts(settings: UnlearnSettings, model: LoadedModel) -> None:
    """Refuse an adapter with factors of experts, which PEFT holds in a form that cannot be put side by side.

    Raises:
        InputError: saying how to leave them out.
    """
    choice = choose_targets(settings.adapter, chosen_start(settings), model.model, settings.objective)
    experts = experts_among(model.model, choice.targets)
    if experts:
        raise InputError(
            f"adapter: would hold factors of experts ({next(iter(experts))}), and a ledger composes those of linear "
            "layers; leave them out with adapter.exclude_modules."
        )


def made_from(book: Ledger, addition: Addition, composed: Composition | None) -> str:
    """Hash of what decides a request's run; the work on it lies in a folder of that name."""
    forget, retain = addition.sets
    retained = retain.sha256() if retain is not None else None
    before = composed.adapter_sha256 if composed is not None else book.beginning.model.fingerprint
    settings = addition.settings.model_dump(mode="json", exclude={"model"})
    return json_sha256([settings, forget.sha256(), retained, before, *([addition.joined] if addition.joined else [])])


def found_done(
    book: Ledger, settings: UnlearnSettings, sets: ForgetAndRetain, reporter: Reporter, *, join: bool
) -> Request | None:
    """The last request, where this command was ended between its entry and its end; what it left is removed."""
    last = next(iter(reversed(book.of_kind(Request))), None)
    if last is None or not (book.path / WORK / _short(last.made_from)).is_dir():
        return None
    clear(book, book.path / WORK / _short(last.made_from), reporter)
    addition = Addition(settings, sets, last.joins if join else [], stay=[])
    if made_from(book, addition, book.composed_before(last.entry)) != last.made_from:
        return None
    reporter.say(f"This request was added before, as {last.entry}; nothing is repeated")
    return last


def start_from(book: Ledger, addition: Addition, place: Path) -> UnlearnSettings:
    """Settings of the run: on the model with all that stays in it, which lies beside the run until it ends."""
    settings, composed = addition.settings, book.composed
    if composed is None or not addition.stay:
        return settings
    folder = place / "start"
    if folder.is_dir():  # Made again each time, so that it cannot be another's.
        shutil.rmtree(folder)
    own = settings.model
    present = read_update(book.path / composed.folder / "adapter")
    whole = sum_of([*updates_below(own), *(updates_of(book, addition.stay) if addition.joined else [present])])
    write_adapter(folder, whole.factors, transposed=whole.transposed, base_model=None, card="")
    if is_adapter(own.name) and (Path(own.name) / "tokenizer_config.json").is_file():
        save_tokenizer(load_tokenizer(own.name, base=own.base), folder)
    model = own.model_copy(update={"name": str(folder), "base": plain_base(own.name, own.base)})
    return with_fixed_source(settings).model_copy(update={"model": model})


def record_run(book: Ledger, addition: Addition, run: Path, model: LoadedModel, expected: Tensor) -> LedgerEntry:
    """Write the update of a finished run, compose, check the sum by the logits, and add the entry.

    Raises:
        UnloraError: the composed adapter computes something else than the run's model.
    """
    forget, retain = addition.sets
    record = read_json_object(run / "record.json")
    update = plain_update(run / "adapter")
    request = write_request(book, run, update)
    files = hashes_below(request, book.path)
    composed = compose(book, [*addition.stay, book.next_number], addition.settings.model)
    adapted = load_trained_adapter(model.model, book.path / composed.folder / "adapter")
    found, bits = probe_logits(adapted), quantisation_of(model.model)
    check = compare_logits(expected, found, dtype=model.model.dtype, bits=bits)
    if not check.relative_difference <= check.tolerance:
        raise UnloraError(
            f"{book.path / composed.folder}: what was composed is another model than the one that was trained (the "
            f"logits differ by {check.relative_difference:.1%}, and rounding explains {check.tolerance:.2%}); the "
            "ledger is as it was."
        )
    level = record.get("level")
    return book.add(
        kind="request",
        forget=hashed_set(book.beginning.salt, forget).model_dump(),
        retain_sha256=retain.sha256() if retain is not None else None,
        probability=ask_both(adapted, model.tokenizer, addition.settings.data, forget).model_dump(),
        level=Settled.from_json(level).sentence() if level else None,
        rank=next(iter(update.factors.values())).lora_a.shape[0],
        made_from=made_from(book, addition, book.composed),
        files=files,
        composed=composed.model_dump(),
        joins=addition.joined,
    )


def compose(book: Ledger, of: Sequence[int], model: ModelSettings, *, strength: float = 1.0) -> Composition:
    """Write the adapter that some requests make together, each as strong as it was settled; all, times `strength`.

    `model` is the ledger's own, as it is found now.
    """
    return write_composition(book, of, sum_of(updates_of(book, of, strength=strength)), model)


def updates_of(book: Ledger, requests: Sequence[int], *, strength: float = 1.0) -> list[Update]:
    """The updates of some requests, each as strong as it was settled, times `strength`."""
    return [read_update(request_adapter(book, one)).times(strength * book.strength(one)) for one in requests]


def clear(book: Ledger, place: Path, reporter: Reporter) -> None:
    """Remove what the request was worked on with: scores and pages hold texts of its records, and so does the cache.

    Its own folder goes last: as long as it is there, the same command, started again, finds its request done.
    """
    if (place / "run" / "config.yaml").is_file():  # not where this was ended in the middle
        remove_entries(chosen_entries((), run=place / "run", older_than_days=None))
    for other in (book.path / WORK).iterdir():
        if other != place:
            reporter.say(f"{other}: of a request that was not finished before this one came; removed")
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    book.tidy()
    shutil.rmtree(place)
    place.parent.rmdir()


def _short(hash: str) -> str:
    return hash[:12]
