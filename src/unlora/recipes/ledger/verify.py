"""Whether a ledger and the files that it vouches for are what was written."""

import re
from pathlib import Path
from typing import NamedTuple

from unlora.errors import InputError
from unlora.ledger.book import COMPOSED, FILE, WORK, Ledger
from unlora.ledger.chain import HASH, read_chain

HASH_OR_BEGINNING = re.compile(r"[0-9a-f]{4,64}")
"""What is looked for; of fewer digits any ledger may have one, and of none every ledger."""


class Verified(NamedTuple):
    """What was found."""

    faults: list[str]
    """What was changed, or is missing: one line each."""
    notices: list[str]
    """What is no fault, but was not written down."""
    entry_count: int
    file_count: int
    head: str
    """Hash of the last entry; kept elsewhere, it shows later that nothing was cut off."""


def verify_ledger(folder: Path, *, head: str | None = None) -> Verified:
    """Recheck the chain of entries, then every file that they vouch for. Nothing is written, and no model is loaded.

    Another process may add an entry meanwhile, and remove what that replaces: then all is looked at again.

    Args:
        folder: of the ledger.
        head: the hash of an entry that somebody has kept, or its beginning: it must still be there.

    Raises:
        InputError: not a ledger, or `head` is not the beginning of a hash.
    """
    if head is not None and not HASH_OR_BEGINNING.fullmatch(head := head.strip().lower()):
        raise InputError(f"--head '{head}': not a hash of an entry, or its first 4 digits or more (0-9, a-f).")
    if not (folder / FILE).is_file():
        raise InputError(f"{folder}: no {FILE}; not a ledger.")
    while True:
        found = _as_it_is(folder, head)
        if not found.faults or len(read_chain(folder / FILE).links) <= found.entry_count:
            return found


def _as_it_is(folder: Path, head: str | None) -> Verified:
    chain = read_chain(folder / FILE)
    hashes = [link[HASH] for link in chain.links]
    faults = [chain.fault] if chain.fault is not None else []
    if head is not None and not any(one.startswith(head) for one in hashes):
        faults.append(f"{folder / FILE}: has no entry of hash {head}; it was cut off, or written anew")
    if faults:
        return Verified(faults, [], len(hashes), 0, hashes[-1] if hashes else "")
    book = Ledger(folder)
    faults = book.changed_files()
    named = {name for entry in book.entries for name in entry.own_files()}
    named |= set(book.composed.files) if book.composed is not None else set()
    notices = [_left(place) for place in book.unnamed()]
    notices += [f"{place}: a request that is not finished; the same command goes on" for place in _under_way(folder)]
    return Verified(faults, notices, len(hashes), len(named), hashes[-1])


def _left(place: Path) -> str:
    """What a folder is that no entry names; what a user has put beside a composition, an export, outlives it."""
    own = [] if place.name.startswith(".") or place.parent.name != COMPOSED else sorted(place.glob("*"))
    if not own or (place / "adapter").exists():
        return f"{place}: named by no entry; left by a command that ended early"
    names = ", ".join(one.name for one in own)
    return f"{place}: holds {names}, of a composition that has been replaced; make it again from the present one"


def _under_way(folder: Path) -> list[Path]:
    return sorted((folder / WORK).glob("*"))
