"""Begin a ledger beside a model."""

import secrets
from pathlib import Path

from unlora.artifacts import refuse_unwritable
from unlora.errors import InputError
from unlora.ledger.book import ADVICE, FILE, Ledger, named_from, stamped
from unlora.ledger.chain import linked, write_chain
from unlora.ledger.compose import updates_below
from unlora.locks import alone_in, entries
from unlora.models.load import LoadedModel
from unlora.models.save import new_folder
from unlora.run.loading import load, load_target
from unlora.run.reporter import SILENT, Reporter
from unlora.run.settings import ModelSettings


def begin_ledger(folder: Path, model: ModelSettings, *, reporter: Reporter = SILENT) -> Ledger:
    """Write the first entry of a new ledger: which model it is about, by name and by the hash of its weights.

    Args:
        folder: of the ledger; must not exist yet, or be empty.
        model: in full precision; where it is an adapter, one of linear layers alone.
        reporter: where words go.

    Raises:
        InputError: the folder is in use, or such a model cannot have a ledger.
    """
    with alone_in(folder, advice=ADVICE):
        if folder.is_file() or (folder.is_dir() and entries(folder)):
            raise InputError(f"{folder}: already exists and is not empty; choose another folder.")
        refuse_unwritable(folder, called="LEDGER")
        updates_below(model)  # refused before anything is loaded
        loaded = load_target(model, reporter)
        refuse_low_precision(loaded, model)
        base = named_from(folder, model.base) if model.base is not None else None
        told = {
            "name": named_from(folder, model.name),
            "base": base,
            "fingerprint": loaded.fingerprint,
            "source": vars(loaded.source),
        }
        first = stamped({"kind": "model", "model": told, "salt": secrets.token_hex(16)})
        with new_folder(folder) as temporary:
            write_chain(temporary / FILE, [linked(first, [])])
    return Ledger(folder)


def load_the_model(book: Ledger, model: ModelSettings, reporter: Reporter) -> LoadedModel:
    """Load the model of a ledger.

    Raises:
        InputError: it is not where it was, or not the one that the ledger was begun with.
    """
    refuse_moved(book, model)
    reporter.say(f"Loading the model of the ledger, {model.name}")
    loaded = load(model)
    recorded = book.beginning.model.fingerprint
    if loaded.fingerprint != recorded:
        raise InputError(
            f"{book.path}: is about a model with weights {recorded[:12]}, and {model.name} has "
            f"{loaded.fingerprint[:12]}; put that model back, say where it is now with --model, or begin a ledger for "
            "this one."
        )
    return loaded


def refuse_moved(book: Ledger, model: ModelSettings) -> None:
    """Refuse a model that the ledger knows by its folder, and that is not there: no name for the hub.

    Raises:
        InputError: naming it.
    """
    if book.beginning.model.name.startswith(".") and not Path(model.name).is_dir():
        raise InputError(f"model '{model.name}': no such folder; say where it is now with --model.")


def refuse_low_precision(loaded: LoadedModel, model: ModelSettings) -> None:
    """Refuse a model in 4 or 8 bits: with an adapter merged into it, it would be rounded to other weights each time.

    Raises:
        InputError: naming it.
    """
    if loaded.source.quantisation is not None:
        raise InputError(
            f"model '{model.name}': is in {loaded.source.quantisation}; a ledger composes on full-precision weights. "
            "Give those, and put the adapter that comes out on the rounded ones."
        )
