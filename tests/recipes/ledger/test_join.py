"""Several requests in one: forgotten anew together, as if they had been asked for at once."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.recipes.ledger.test_requests import Files, composed, files, filled, settings_of
from tests.taught import FORGET, write_jsonl
from unlora.errors import InputError
from unlora.ledger.book import Ledger
from unlora.ledger.entries import Request
from unlora.recipes.ledger.add import add_request
from unlora.recipes.ledger.begin import begin_ledger
from unlora.recipes.ledger.roll_back import roll_back
from unlora.recipes.ledger.status import check_requests, standings
from unlora.recipes.ledger.verify import verify_ledger

__all__ = ["files", "filled"]
"""Fixtures of the requests that are joined: Mira's is 1, Tomas's 2."""


def together(files: Files, *names: str) -> Path:
    """One file with the records of some people."""
    text = "".join(getattr(files, name).read_text() for name in names)
    path = files.book.parent / f"{'-and-'.join(names)}.jsonl"
    path.write_text(text)
    return path


def join(files: Files, forget: Path, book: Path | None = None, *, joins: bool = True) -> Request:
    book = book or files.book
    settings = settings_of(Ledger(book), forget, files.lena, start={"kind": "contrast_inputs"})
    entry = add_request(book, settings, join=joins)
    assert isinstance(entry, Request)
    return entry


def test_joined_requests_are_the_model_of_one_request_of_all(files: Files, tmp_path: Path):
    everybody = together(files, "mira", "tomas")
    request = join(files, everybody)
    assert request.joins == [1, 2]
    assert request.composed.of == [request.entry]
    begin_ledger(tmp_path / "other", files.model)
    alone = join(files, everybody, tmp_path / "other", joins=False)
    ours, theirs = (
        load_file(book / one.composed.folder / "adapter" / "adapter_model.safetensors")
        for book, one in ((files.book, request), (tmp_path / "other", alone))
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert request.probability == alone.probability


def test_what_was_joined_stands_in_its_place_and_the_ledger_holds(files: Files):
    request = join(files, together(files, "mira", "tomas"))
    book = Ledger(files.book)
    assert [one.entry for one in book.in_force] == [request.entry]
    assert [one.joined_by for one in standings(book)] == [request.entry, request.entry, None]
    assert not any(one.comes_back for one in standings(book))
    assert verify_ledger(files.book).faults == []
    with pytest.raises(InputError, match=rf"request 1 is a part of request {request.entry}"):
        roll_back(files.book, 1, files.model)
    checked = check_requests(files.book, [str(files.mira)], files.model)
    assert standings(checked)[0].measured_by == request.entry + 1
    roll_back(files.book, request.entry, files.model)
    assert Ledger(files.book).composed is None


def test_requests_that_are_not_among_the_records_stay(files: Files):
    before = load_file(files.book / "requests" / "2" / "adapter" / "adapter_model.safetensors")
    request = join(files, files.mira)
    assert (request.joins, request.composed.of) == ([1], [2, request.entry])
    config = json.loads((composed(files) / "adapter_config.json").read_text())
    rank = next(iter(before.values())).shape[0]
    assert config["r"] == rank + request.rank


def test_the_same_command_finds_it_done(files: Files):
    everybody = together(files, "mira", "tomas")
    first = join(files, everybody)
    work = files.book / "work" / first.made_from[:12]
    work.mkdir(parents=True)  # as where it was ended between its entry and its end
    assert join(files, everybody).entry == first.entry
    assert not work.exists()


def test_records_of_no_request_join_nothing(files: Files):
    part = write_jsonl(files.book.parent / "part.jsonl", FORGET[:-1])
    entries = Ledger(files.book).next_number
    with pytest.raises(InputError, match=r"part\.jsonl: holds all records of no request in force"):
        join(files, part)
    assert Ledger(files.book).next_number == entries
