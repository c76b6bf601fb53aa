"""Give back what requests took past their level: each was brought there by itself, and later ones pushed it further."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from unlora.adapters.export import load_trained_adapter
from unlora.adapters.strength import at_strength, find_strength
from unlora.artifacts import read_json_object
from unlora.data.records import ExampleSet
from unlora.errors import InputError
from unlora.ledger.book import ADVICE, REQUESTS, Ledger
from unlora.ledger.compose import request_data
from unlora.ledger.entries import LedgerEntry, Request, RequestAsked
from unlora.level import Settled
from unlora.locks import alone_in
from unlora.recipes.ledger.add import compose
from unlora.recipes.ledger.ask import ask_both, ask_now
from unlora.recipes.ledger.begin import load_the_model
from unlora.recipes.ledger.status import requests_of
from unlora.run.loading import load
from unlora.run.reporter import SILENT, Reporter
from unlora.run.settings import ModelSettings

WholeRequest = tuple[Request, ExampleSet]
"""A request with its records, which the ledger does not hold."""


def settle_ledger(
    folder: Path,
    files: Sequence[str],
    model: ModelSettings,
    *,
    level: float | None = None,
    reporter: Reporter = SILENT,
) -> LedgerEntry | None:
    """Make all requests in force weaker together, until the mean over their records is at the level; add an entry.

    All updates are multiplied by one number: what was forgotten past the level is taken back on the straight line to
    the model without them, as a single run does it.

    Args:
        folder: of the ledger.
        files: the records of every request in force.
        model: the ledger's.
        level: mean answer probability to aim at; None: the mean of the levels that the requests aimed at.
        reporter: where words go.

    Returns:
        The entry; None where the requests are not past the level, and all stays as it is.

    Raises:
        InputError: records of a request in force are missing, no level is known, another model, a changed file, or
            another process at work here.
    """
    with alone_in(folder, advice=ADVICE):
        book = Ledger(folder)
        book.refuse_changed()
        composed = book.composed
        if composed is None:
            raise InputError(f"{folder}: no request is in force; there is nothing to settle.")
        whole = _all_in_force(book, files)
        aim = _level(book, whole) if level is None else level
        loaded = load_the_model(book, model, reporter)
        read = [(request_data(book, request.entry), examples) for request, examples in whole]
        present = load_trained_adapter(loaded.model, book.path / composed.folder / "adapter")

        @cache
        def at(strength: float) -> float:
            with at_strength(present, strength):
                return _mean(whole, [ask_now(present, loaded.tokenizer, data, examples) for data, examples in read])

        before, strength = at(1.0), find_strength(at, aim, most=1.0)
        if not 0 < strength < 1:
            why = "not past the level" if strength else "and no more in the model itself than the level"
            reporter.say(f"Answer probability {before:.3f}, {why} of {aim:.3f}; nothing is changed")
            return None
        book.tidy()
        weaker = compose(book, [one.entry for one, _ in whole], model, strength=strength)
        adapted = load_trained_adapter(load(model).model, book.path / weaker.folder / "adapter")
        asked = [
            RequestAsked(request=request.entry, probability=ask_both(adapted, loaded.tokenizer, data, examples))
            for (request, _), (data, examples) in zip(whole, read, strict=True)
        ]
        entry = book.add(
            kind="settling",
            level=aim,
            strength=strength,
            asked=[one.model_dump() for one in asked],
            composed=weaker.model_dump(),
        )
        book.tidy()
    after = _mean(whole, [one.probability.now for one in asked])
    reporter.say(f"Answer probability {before:.3f}, now {after:.3f}: every update at {strength:.2f} of its strength")
    return entry


def _all_in_force(book: Ledger, files: Sequence[str]) -> list[WholeRequest]:
    found = {request.entry: (request, examples) for file in files for request, examples in requests_of(book, file)}
    missing = [str(one.entry) for one in book.in_force if one.entry not in found]
    if missing:
        raise InputError(
            f"{book.path}: the records of request {', '.join(missing)} are in none of the files; one strength for all "
            "is found by the records of all: give their files too (--forget, repeatable)."
        )
    return [found[one.entry] for one in book.in_force]


def _level(book: Ledger, whole: Sequence[WholeRequest]) -> float:
    """Mean over the records of the levels that their requests aimed at."""
    total = 0.0
    for request, examples in whole:
        record = read_json_object(book.path / REQUESTS / str(request.entry) / "record.json").get("level")
        if not isinstance(record, dict):
            raise InputError(f"{book.path}: request {request.entry} aimed at no level; say one with --level.")
        total += Settled.from_json(record).level.probability * len(examples)
    return total / sum(len(examples) for _, examples in whole)


def _mean(whole: Sequence[WholeRequest], values: Sequence[float]) -> float:
    """Over all records, of the means of the requests."""
    counts = [len(examples) for _, examples in whole]
    return sum(value * count for value, count in zip(values, counts, strict=True)) / sum(counts)
