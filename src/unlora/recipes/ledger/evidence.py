"""Take the audit of a composition into the ledger."""

import shutil
from pathlib import Path

from unlora.artifacts import read_json_object
from unlora.errors import InputError
from unlora.ledger.book import ADVICE, EVIDENCE, Ledger, hashes_below
from unlora.ledger.entries import Composition, LedgerEntry, Request, RollBack, Settling
from unlora.locks import alone_in
from unlora.models.save import new_folder
from unlora.report.shapes import AuditFile, refuse_unless


def attach_audit(folder: Path, audit: Path) -> LedgerEntry:
    """Copy the audit.json of an audit of a composition, which holds no texts of records, and add an entry.

    It is evidence of the composition's last request: its settings name the records that an audit asks about.

    Args:
        folder: of the ledger.
        audit: folder that `unlora audit` wrote.

    Raises:
        InputError: no finished audit, one of another model, or another process at work here.
    """
    with alone_in(folder, advice=ADVICE):
        book = Ledger(folder)
        file = audit / "audit.json"
        found = read_json_object(file)
        refuse_unless(AuditFile, found, file, "an audit")
        composed = _attacked(book, found)
        if composed is None:
            raise InputError(
                f"{file}: is of no composition of this ledger; audit the present one, whose folder `unlora ledger "
                f"status {folder}` names."
            )
        book.tidy()
        kept = book.path / EVIDENCE / str(book.next_number)
        with new_folder(kept) as temporary:
            shutil.copyfile(file, temporary / "audit.json")
        entry = book.add(
            kind="audit",
            request=composed.of[-1],
            verdict=found["verdict"],
            adapter_sha256=composed.adapter_sha256,
            files=hashes_below(kept, book.path),
        )
    return entry


def _attacked(book: Ledger, audit: dict[str, object]) -> Composition | None:
    weights = audit.get("weights")
    unlearned = weights.get("unlearned") if isinstance(weights, dict) else None
    changes = (one for one in book.entries if isinstance(one, Request | RollBack | Settling))
    known = [one.composed for one in changes if one.composed is not None]
    model = book.beginning.model.fingerprint
    return next((one for one in known if unlearned == f"{model}+{one.adapter_sha256}"), None)
