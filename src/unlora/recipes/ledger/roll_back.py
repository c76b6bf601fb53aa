"""Take one request back: its update leaves the composition, and all others stay as they are."""

from pathlib import Path

from unlora.errors import InputError
from unlora.ledger.book import ADVICE, Ledger
from unlora.ledger.entries import LedgerEntry
from unlora.locks import alone_in
from unlora.recipes.ledger.add import compose
from unlora.recipes.ledger.begin import refuse_moved
from unlora.run.settings import ModelSettings


def roll_back(folder: Path, request: int, model: ModelSettings) -> LedgerEntry:
    """Compose the other requests in force anew, and add an entry; no model is loaded.

    Later requests were trained with this one in force; whether they still hold is asked by `status`.

    Args:
        folder: of the ledger.
        request: its number.
        model: the ledger's own, which is only named in what is written.

    Raises:
        InputError: no such request, one that was taken back before or joined into another, no such model, a changed
            file, or another process at work here.
    """
    with alone_in(folder, advice=ADVICE):
        book = Ledger(folder)
        asked = book.request(request)
        if asked.entry in book.rolled_back:
            raise InputError(
                f"{folder}: request {request} was rolled back before, by entry {book.rolled_back[request]}."
            )
        if asked.entry in book.joined:
            place = book.joined[asked.entry]
            raise InputError(
                f"{folder}: request {request} is a part of request {place} and cannot be taken out of it; roll that "
                "back, and add the records of the others again."
            )
        book.refuse_changed()
        refuse_moved(book, model)
        book.tidy()
        of = [one.entry for one in book.in_force if one.entry != request]
        composed = compose(book, of, model).model_dump() if of else None
        entry = book.add(kind="rollback", request=request, composed=composed)
        book.tidy()
    return entry
