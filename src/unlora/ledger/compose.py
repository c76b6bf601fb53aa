"""Adapters of single requests, and the one adapter that all requests in force make: W = W0 + sum of B_i A_i."""

import functools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unlora.adapters.export import read_adapter, write_adapter
from unlora.adapters.factors import Factors, concatenate, rank_of, squeeze
from unlora.artifacts import read_json_object, write_text
from unlora.cards.model_card import exported_card
from unlora.cards.naming import base_model, name_target
from unlora.config import read_yaml
from unlora.data.settings import DataSettings
from unlora.ledger.book import COMPOSED, REQUESTS, Ledger, hashes_below
from unlora.ledger.entries import Composition, TheModel
from unlora.models.adapter_target import is_adapter, recorded_base
from unlora.models.fingerprint import adapter_sha256
from unlora.models.origin import Origin
from unlora.models.save import new_folder
from unlora.run.settings import ModelSettings, UnlearnSettings

NOTHING = 1e-7
"""Relative error of an update that float32's rounding explains."""
EVIDENCE_FILES = ("config.yaml", "record.json", "evaluation.json", "train_log.jsonl")
"""Of a run: numbers, settings and hashes. What holds texts of records stays out, and so does the importance map, which
was measured on them."""
PART = (
    "# A part of a composition\n\nThe update of one request of a ledger (`unlora ledger`), exact up to float32's "
    "rounding. What is deployed is the adapter that all requests in force make together.\n"
)


class Update(NamedTuple):
    """A weight update in plain factors."""

    factors: Mapping[str, Factors]
    transposed: bool
    """Whether the model keeps its weights as (d_in, d_out)."""

    def times(self, strength: float) -> "Update":
        """The same update, so much stronger or weaker."""
        if strength == 1:
            return self
        factors = {name: Factors(one.lora_b * strength, one.lora_a) for name, one in self.factors.items()}
        return self._replace(factors=factors)


def read_update(folder: Path) -> Update:
    """Read an adapter folder.

    Raises:
        InputError: as `read_adapter`.
    """
    config, factors = read_adapter(folder)
    return Update(factors, config.fan_in_fan_out)


def plain_update(folder: Path) -> Update:
    """Read a trained adapter without the halves that cancel: taken apart anew in float64, of half its rank where that
    loses nothing, as where A was frozen.
    """
    update = read_update(folder)
    half, error = squeeze(update.factors, max(1, rank_of(update.factors) // 2))
    whole = half if error < NOTHING else squeeze(update.factors, rank_of(update.factors))[0]
    return update._replace(factors=whole)


def sum_of(updates: Sequence[Update]) -> Update:
    """One update that does what all of them do, by exact concatenation; there must be one."""
    factors = functools.reduce(concatenate, [update.factors for update in updates])
    return Update(factors, updates[0].transposed)


def updates_below(settings: ModelSettings) -> list[Update]:
    """The adapters that the model is made of itself, the lowest first; none where it is no adapter.

    Raises:
        InputError: one that is more than factors of linear layers.
    """
    found: list[Update] = []
    name, base = settings.name, settings.base
    while is_adapter(name):
        found.insert(0, read_update(Path(name)))
        name, base = base or recorded_base(Path(name)), None
    return found


def write_request(book: Ledger, run: Path, update: Update) -> Path:
    """Write what the ledger keeps of a run: its update, and the evidence; returns the folder."""
    folder = book.path / REQUESTS / str(book.next_number)
    with new_folder(folder) as temporary:
        for name in EVIDENCE_FILES:
            if (run / name).is_file():
                shutil.copyfile(run / name, temporary / name)
        write_adapter(
            temporary / "adapter", update.factors, transposed=update.transposed, base_model=None, card=PART
        )  # fmt: skip
    return folder


def write_composition(book: Ledger, of: Sequence[int], update: Update, own: ModelSettings) -> Composition:
    """Write the adapter of now, in a folder that other commands take for a finished run on the ledger's model.

    Its settings are those of the last request in force.

    Args:
        book: the ledger; the folder is named by its next entry.
        of: numbers of the requests in force.
        update: what they make together.
        own: the ledger's model, where it is now.
    """
    model, folder = book.beginning.model, book.path / COMPOSED / str(book.next_number)
    last = book.path / REQUESTS / str(of[-1])
    settings = _on_the_model(last, own)
    record = _record(read_json_object(last / "record.json"), model)
    stack = name_target(settings.model, folder / "adapter")
    rank = rank_of(update.factors)
    how = [f"The updates of a ledger's requests side by side: {', '.join(map(str, of))}."]
    with new_folder(folder) as temporary:
        write_adapter(
            temporary / "adapter",
            update.factors,
            transposed=update.transposed,
            base_model=base_model(stack),
            card=exported_card(settings, record, stack, rank, how),
            origin=Origin(model.fingerprint, model.source["dtype"], None, stack.top.source),
        )
        sha256 = adapter_sha256(temporary / "adapter")
        write_text(temporary / "config.yaml", settings.to_yaml())
        (temporary / "record.json").write_text(json.dumps({**record, "adapter_sha256": sha256}, indent=2) + "\n")
    name = folder.relative_to(book.path).as_posix()
    return Composition(
        folder=name, rank=rank, of=list(of), adapter_sha256=sha256, files=hashes_below(folder, book.path)
    )


def request_data(book: Ledger, number: int) -> DataSettings:
    """How the records of a request were read: template and lengths."""
    return _settings_in(book.path / REQUESTS / str(number)).data


def request_adapter(book: Ledger, number: int) -> Path:
    """Folder of the update of one request."""
    return book.path / REQUESTS / str(number) / "adapter"


def _on_the_model(request: Path, own: ModelSettings) -> UnlearnSettings:
    """Settings of a request's run, but on the ledger's model, where it started from the adapters before it."""
    return _settings_in(request).model_copy(update={"model": own})


def _settings_in(request: Path) -> UnlearnSettings:
    file = request / "config.yaml"
    return UnlearnSettings.from_mapping(read_yaml(file), where=str(file))


def _record(record: Mapping[str, Any], model: TheModel) -> dict[str, Any]:
    """What other commands read of a run, said of the composition."""
    kept = {key: record[key] for key in ("versions", "data", "reach", "auto_class", "objective", "template", "seed")}
    return {
        "finished": True,
        "stages": {},
        "checks": {},
        **kept,
        "model": {**model.source, "fingerprint": model.fingerprint},
    }
