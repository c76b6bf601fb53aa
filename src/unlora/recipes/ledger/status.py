"""What became of every request, and whether what was forgotten is still forgotten by the model of now."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unlora.adapters.export import load_trained_adapter
from unlora.config import read_yaml
from unlora.data.records import ExampleSet
from unlora.data.sources import load_examples
from unlora.errors import InputError
from unlora.ledger.book import ADVICE, REQUESTS, Ledger
from unlora.ledger.entries import Audit, Probability, Recheck, Request
from unlora.locks import alone_in
from unlora.models.wrapping import CausalModel
from unlora.recipes.ledger.ask import ask_both
from unlora.recipes.ledger.begin import load_the_model
from unlora.run.reporter import SILENT, Reporter
from unlora.run.settings import ModelSettings, UnlearnSettings

BACK = 0.1
"""Share of what a request took away that may have come back before it is said: other requests move every probability a
little."""
LEAST = 0.01
"""Rise of the answer probability below which nothing came back, whatever share of a small effect it is."""


class Standing(NamedTuple):
    """One request, as it stands."""

    request: Request
    rolled_back_by: int | None
    latest: Probability
    """The last that was measured."""
    measured_by: int
    """The entry that measured it: the request's own, or a check's."""
    audit: Audit | None
    """The last one."""

    @property
    def back(self) -> float:
        """Share of what the request took away that is there again; 0 right after it, 1 where nothing is left of it."""
        first = self.request.probability
        taken = first.target - first.now
        return (self.latest.now - first.now) / taken if taken > 0 else 0.0

    @property
    def comes_back(self) -> bool:
        """Whether a request in force no longer holds."""
        rise = self.latest.now - self.request.probability.now
        return self.rolled_back_by is None and self.back > BACK and rise > LEAST


def standings(book: Ledger) -> list[Standing]:
    """Every request with its last evidence."""
    found = []
    for request in book.of_kind(Request):
        checks = [one for one in book.of_kind(Recheck) if one.request == request.entry]
        audits = [one for one in book.of_kind(Audit) if one.request == request.entry]
        last = checks[-1] if checks else request
        rolled_back = book.rolled_back.get(request.entry)
        found.append(Standing(request, rolled_back, last.probability, last.entry, audits[-1] if audits else None))
    return found


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
        asked = [(request, examples) for file in files for request, examples in _requests_of(book, file)]
        loaded = load_the_model(book, model, reporter)
        composed = book.composed
        present: CausalModel = loaded.model
        if composed is not None:
            present = load_trained_adapter(loaded.model, book.path / composed.folder / "adapter")
        for request, examples in asked:
            config = book.path / REQUESTS / str(request.entry) / "config.yaml"
            data = UnlearnSettings.from_mapping(read_yaml(config), where=str(config)).data
            book.add(
                kind="check",
                request=request.entry,
                probability=ask_both(present, loaded.tokenizer, data, examples).model_dump(),
                adapter_sha256=composed.adapter_sha256 if composed is not None else None,
            )
    return book


def _requests_of(book: Ledger, file: str) -> list[tuple[Request, ExampleSet]]:
    """The requests whose records a file holds: several where it was rolled back and added again."""
    examples = load_examples(file)
    found = [request for request in book.of_kind(Request) if request.forget.sha256 == examples.sha256()]
    if not found:
        raise InputError(
            f"{file}: holds the records of no request of this ledger (none has their hash, "
            f"{examples.sha256()[:12]}); give the file as it was when it was added."
        )
    return [(request, examples) for request in found]
