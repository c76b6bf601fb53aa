"""A sample of the kills and races that a ledger must survive; a hundred by command (docs/faults.md)."""

import random

import pytest

from tests.faults.harness import races
from tests.faults.harness.child import prepare_server
from tests.faults.harness.ledger import Besieged, Siege, killed_ledgers, ledger_table, prepared, record

KILLS = 4


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Besieged:
    prepare_server()
    return prepared(tmp_path_factory.mktemp("ledger"), None)


def test_killed_at_random_a_ledger_verifies_and_ends_as_undisturbed(besieged: Besieged):
    sieges = list(killed_ledgers(besieged, KILLS, random.Random(3)))
    assert [siege.what for siege in sieges] == [""] * len(sieges)
    assert sum(siege.kills for siege in sieges) == KILLS
    assert all(siege.verified >= siege.kills + 4 for siege in sieges)
    assert [len(siege.lines) for siege in sieges] == [5] * len(sieges)


def test_two_writers_one_of_them_killed_add_both_requests(besieged: Besieged):
    (_, siege) = races.raced_ledgers(besieged, 2, random.Random(1))  # the first race is without kills
    assert siege.what == ""
    assert siege.refusals > 0
    assert len(siege.lines) == 3


def test_what_is_lost_or_changed_is_seen(besieged: Besieged):
    """The eyes of the harness: a line that went, and a file that was cut."""
    place = besieged.ledger("seen")
    siege = Siege("killed", lines=[*record(place), "one more"])
    assert not siege.look(place)
    assert siege.what == "of 2 entries one is lost or another"
    file = place / "work" / "requests" / "ledger.jsonl"
    file.write_text(file.read_text()[:-9])
    cut = Siege("killed")
    assert not cut.look(place)
    assert cut.what.startswith("verify ended with 1: ")
    assert ledger_table([siege, cut]).splitlines()[2] == "| killed | 2 | 0 | 0 | 2 | 0 | 2 |"
