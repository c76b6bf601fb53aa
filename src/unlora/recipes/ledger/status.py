"""What became of every request, and whether what was forgotten is still forgotten by the model of now."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unlora.adapters.export import load_trained_adapter
from unlora.data.records import ExampleSet
from unlora.data.sources import load_examples
from unlora.errors import InputError
from unlora.ledger.book import ADVICE, Ledger
from unlora.ledger.compose import request_data
from unlora.ledger.entries import Audit, Probability, Recheck, Request, Settling
from unlora.locks import alone_in
from unlora.models.wrapping import CausalModel
from unlora.recipes.ledger.ask import ask_both
from unlora.recipes.ledger.begin import load_the_model
from unlora.run.reporter import SILENT, Reporter
from unlora.run.settings import ModelSettings

BACK = 0.1
"""Share of what a request took away that may have come back before it is said: other requests move every probability a
little."""
LEAST = 0.01
"""Rise of the answer probability below which nothing came back, whatever share of a small effect it is."""


class Standing(NamedTuple):
    """One request, as it stands."""

    request: Request
    rolled_back_by: int | None
    joined_by: int | None
    """The request that took its place, which is asked about with all of its records."""
    latest: Probability
    """The last that was measured."""
    measured_by: int
    """The entry that measured it: the request's own, a settling's or a check's."""
    left: float
    """What was left on purpose: the probability right after the request, or after it was settled."""
    audit: Audit | None
    """The last one."""

    @property
    def back(self) -> float:
        """Share of what the request took away that is there again; 0 right after it, 1 where nothing is left of it."""
        taken = self.request.probability.target - self.left
        return (self.latest.now - self.left) / taken if taken > 0 else 0.0

    @property
    def comes_back(self) -> bool:
        """Whether a request in force no longer holds."""
        rise = self.latest.now - self.left
        out = self.rolled_back_by is not None or self.joined_by is not None
        return not out and self.back > BACK and rise > LEAST


def standings(book: Ledger) -> list[Standing]:
    """Every request with its last evidence."""
    found = []
    for request in book.of_kind(Request):
        audits = [one for one in book.of_kind(Audit) if one.request == request.entry]
        settled = [(one.entry, _asked(one, request.entry)) for one in book.of_kind(Settling)]
        known = [(request.entry, request.probability), *((place, one) for place, one in settled if one is not None)]
        checks = [(one.entry, one.probability) for one in book.of_kind(Recheck) if one.request == request.entry]
        place, latest = max((*known, *checks), key=lambda one: one[0])
        audit = audits[-1] if audits else None
        out = book.rolled_back.get(request.entry), book.joined.get(request.entry)
        found.append(Standing(request, *out, latest, place, known[-1][1].now, audit))
    return found


def _asked(settling: Settling, request: int) -> Probability | None:
    """What a settling left of one request; None where that was not in force."""
    return next((one.probability for one in settling.asked if one.request == request), None)


def check_requests(folder: Path, files: Sequence[str], model: ModelSettings, *, reporter: Reporter = SILENT) -> Ledger:
    """Ask the present model about the records of earlier requests, and write down what it still knows of them.

    Args:
        folder: of the ledger.
        files: the records again, which the ledger does not hold: each must be that of a request, by its hash.
        model: the ledger's.
        reporter: where words go.

    Raises:
        InputError: a file of no request, another model, a changed file, or another process at work here.
    """
    with alone_in(folder, advice=ADVICE):
        book = Ledger(folder)
        book.refuse_changed()
        asked = [(request, examples) for file in files for request, examples in requests_of(book, file)]
        refuse_twice([request.entry for request, _ in asked])
        loaded = load_the_model(book, model, reporter)
        composed = book.composed
        present: CausalModel = loaded.model
        if composed is not None:
            present = load_trained_adapter(loaded.model, book.path / composed.folder / "adapter")
        for request, examples in asked:
            book.add(
                kind="check",
                request=request.entry,
                probability=ask_both(
                    present, loaded.tokenizer, request_data(book, request.entry), examples
                ).model_dump(),
                adapter_sha256=composed.adapter_sha256 if composed is not None else None,
            )
    return book


def refuse_twice(entries: Sequence[int]) -> None:
    """Refuse records that were given twice: both checks would be written down, and nothing is known after the second.

    Raises:
        InputError: naming the request.
    """
    for entry, count in Counter(entries).items():
        if count > 1:
            raise InputError(f"--forget: gives the records of request {entry} {count} times; give them once.")


def requests_of(book: Ledger, file: str) -> list[tuple[Request, ExampleSet]]:
    """The requests whose records a file holds: several where it was rolled back and added again."""
    examples = load_examples(file)
    found = [request for request in book.of_kind(Request) if request.forget.sha256 == examples.sha256()]
    if not found:
        raise InputError(
            f"{file}: holds the records of no request of this ledger (none has their hash, "
            f"{examples.sha256()[:12]}); give the file as it was when it was added."
        )
    return [(request, examples) for request in found]
