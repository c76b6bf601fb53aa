"""The study of requests one after another: who is forgotten in the end, on a world of three who ask."""

from pathlib import Path

import pytest

from unlora.ledger.book import Ledger
from unlora.ledger.entries import Settling
from unlora.recipes.ledger.verify import verify_ledger
from unlora_research import requests
from unlora_research.requests import Found, steps, table
from unlora_research.small_world import TINY_WORLD


def test_the_order_of_the_study():
    """Twelve requests, the third and the seventh taken back on the way, the third added again at the end."""
    done = steps()
    assert [person for step, person in done if step == "add"] == [*range(12), 2]
    assert [(step, person) for step, person in done[5:12]] == [
        ("add", 5), ("take back", 2), ("add", 6), ("add", 7), ("add", 8), ("take back", 6), ("add", 9),
    ]  # fmt: skip


def test_a_table_of_means_and_ends():
    rows = {"target": [Found(0.9, 0.9, 0.9, 0.9, 0)], "at once": [Found(0.1, 0.3, 0.5, 0.7, 8), Found(0.2, 0, 0, 0, 8)]}
    (*_, target, at_once) = table(rows).splitlines()
    assert target == "| target | 0.900 | 0.900 | 0.900 | 0.900 |  |"
    assert at_once.startswith("| at once | 0.150 [0.100, 0.200] | 0.150 [0.000, 0.300] |")
    assert at_once.endswith("| 8 |")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three people ask; the first two requests are taken back, the first is added again."""
    for name, value in {
        "PEOPLE": 3, "ROLLED_BACK": {0: 1, 1: 2}, "AGAIN": 0, "KEPT_AFTER_ALL": 1, "EPOCHS": 12, "RATE": 5e-3,
        "LEVEL": 0.6, "QUICK_WORLD": TINY_WORLD.model_copy(update={"forget_people": 3}),
    }.items():  # fmt: skip
        monkeypatch.setattr(requests, name, value)


@pytest.mark.usefixtures("small")
def test_all_arms_end_with_the_same_people_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    command = [str(tmp_path), "--quick", "--seeds", "0"]
    requests.main(command)
    shown = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in shown.splitlines()[2:]] == [
        "| target", "| never saw the twelve", "| at once", "| one after another", "| one after another, then settled",
        "| one after another, then joined",
    ]  # fmt: skip
    once, sequence, settled, joined = (
        Ledger(tmp_path / name / "requests")
        for name in (
            "at-once-0",
            "one-after-another-0",
            "one-after-another-then-settled-0",
            "one-after-another-then-joined-0",
        )
    )
    assert [request.entry for request in sequence.in_force] == [4, 6]  # the third's, the first's once more
    assert [request.forget.example_count for request in sequence.in_force] == [3, 3]
    assert [request.forget.example_count for request in once.in_force] == [6]
    assert sequence.request(1).forget.sha256 == sequence.request(6).forget.sha256
    books = (once, sequence, settled, joined)
    assert not any(verify_ledger(book.path).faults for book in books)
    values = [Found(**requests.read_json(book.path.parent / "found.json")) for book in books]
    assert joined.joined == {4: 7, 6: 7}
    assert values[3] == values[0]
    assert all(one.taken_back > one.forgotten for one in values)
    (change,) = settled.of_kind(Settling)
    assert values[1].forgotten < requests.LEVEL - 0.02  # the second pushed the first past it
    assert values[2].forgotten == pytest.approx(requests.LEVEL, abs=0.015)
    assert change.strength < 1
    for name in ("add_request", "settle_ledger", "roll_back"):  # what is measured is not made again
        monkeypatch.setattr(requests, name, None)
    requests.main(command)
    assert capsys.readouterr().out == shown
