"""The chain of entries: whatever is changed in it is found, at its line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from unlora.errors import InputError
from unlora.ledger.chain import HASH, linked, read_chain, write_chain


@pytest.fixture
def file(tmp_path: Path) -> Path:
    links: list[dict] = []
    for number in range(4):
        links.append(linked({"kind": "check", "name": f"Zoë {number}"}, links))
    write_chain(tmp_path / "ledger.jsonl", links)
    return tmp_path / "ledger.jsonl"


def edited(line: str, **changes: object) -> str:
    return json.dumps(json.loads(line) | changes, sort_keys=True, ensure_ascii=False)


def test_what_was_written_is_read(file: Path):
    links, fault = read_chain(file)
    assert fault is None
    assert [link["entry"] for link in links] == [0, 1, 2, 3]
    assert [link["previous"] for link in links] == ["", *(link[HASH] for link in links[:3])]
    assert links[2]["name"] == "Zoë 2"


CHANGES: dict[str, tuple[Callable[[list[str]], list[str]], int]] = {
    "a value": (lambda lines: [lines[0], edited(lines[1], name="Ann"), *lines[2:]], 1),
    "a value, and the entry's own hash": (
        lambda lines: [lines[0], json.dumps(linked({"kind": "check", "name": "Ann"}, [json.loads(lines[0])]),
                                            sort_keys=True), *lines[2:]], 2),
    "a line taken out": (lambda lines: [lines[0], *lines[2:]], 1),
    "two lines the other way round": (lambda lines: [lines[0], lines[2], lines[1], lines[3]], 1),
    "a line twice": (lambda lines: [*lines[:2], *lines[1:]], 2),
    "the first line gone": (lambda lines: lines[1:], 0),
    "a blank": (lambda lines: [*lines[:3], lines[3].replace('": ', '":  ', 1)], 3),
    "a key": (lambda lines: [*lines[:3], edited(lines[3], more=1)], 3),
    "half of the last line": (lambda lines: [*lines[:3], lines[3][: len(lines[3]) // 2]], 3),
    "no JSON": (lambda lines: [lines[0], "...", *lines[2:]], 1),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_at_its_line(file: Path, change: str):
    make, whole = CHANGES[change]
    file.write_text("".join(f"{line}\n" for line in make(file.read_text().splitlines())))
    links, fault = read_chain(file)
    assert len(links) == whole
    assert fault is not None
    assert f"line {whole + 1}" in fault


def test_a_line_without_its_end_and_a_file_of_bytes_are_found(file: Path):
    file.write_text(file.read_text().removesuffix("\n"))
    assert read_chain(file).fault == f"{file}: its last line has no end"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_chain(file)


def test_an_end_that_was_cut_off_is_not_found_by_the_chain_alone(file: Path):
    """That is why `verify` says the last hash, and takes one that was kept."""
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    assert read_chain(file).fault is None
