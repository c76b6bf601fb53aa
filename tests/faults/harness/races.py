"""Two writers of one ledger, each tries until its request is in the record; some are killed on the way."""

import json
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tests.faults.harness.child import plain, prepare_server, start
from tests.faults.harness.folders import difference
from tests.faults.harness.kills import LONGEST, ended
from tests.faults.harness.ledger import Besieged, Siege, killed_ledgers, prepared, undisturbed
from unlora.data.sources import load_examples

RACE_KILLS = 2
"""Of every second race."""
BUSY = "another process (PID "
PAUSE = 0.5
"""Seconds after which one tries again who was refused."""


def run_ledger(
    kills: int, races: int, seed: int, tell: Callable[[Siege], None], kept: Path | None = None
) -> list[Siege]:
    """Send so many kills to commands one after another, then let so many pairs of writers race."""
    prepare_server()
    chance = random.Random(seed)
    sieges: list[Siege] = []
    with tempfile.TemporaryDirectory(prefix="unlora-ledger-", ignore_cleanup_errors=True) as folder:
        besieged = prepared(Path(folder), kept)
        for siege in chain(killed_ledgers(besieged, kills, chance), raced_ledgers(besieged, races, chance)):
            sieges.append(siege)
            tell(siege)
    return sieges


def raced_ledgers(besieged: Besieged, races: int, chance: random.Random) -> Iterator[Siege]:
    """Ledgers to which two writers add a request each."""
    if not races:
        return
    orders = (("add mira", "add tomas"), ("add tomas", "add mira"))
    made = [undisturbed(besieged, f"order-{number}", order) for number, order in enumerate(orders)]
    for number in range(races):
        place = besieged.ledger(f"race-{number}")
        siege, first = raced_ledger(besieged, place, made[0][1][0], chance, RACE_KILLS * (number % 2))
        if not siege.what:
            siege.what = difference(place / "work", made[first][0]) or ""
        shutil.rmtree(place, ignore_errors=True)
        yield siege


def raced_ledger(besieged: Besieged, place: Path, took: float, chance: random.Random, kills: int) -> tuple[Siege, int]:
    """Two writers that start at about the same time and try until they have added theirs; the siege, and who was first.

    `kills` times one of them is killed on the way, and starts again as one does that was refused.
    """
    siege, writers = Siege("raced"), [Writer(besieged, place, name) for name in ("mira", "tomas")]
    moments = sorted(chance.uniform(0.05, 1.8) * took for _ in range(kills))
    writers[0].start()
    time.sleep(chance.uniform(0, 0.3 * took) if chance.random() < 0.5 else 0)
    writers[1].start()
    begun = time.monotonic()
    while not siege.what and any(writer.process is not None for writer in writers):
        for writer in writers:
            if writer.process is not None and not writer.works():
                siege.refusals += writer.refused()
                siege.what = writer.wrong_end() if siege.look(place) else siege.what
                time.sleep(PAUSE if writer.refused() else 0)
                writer.go_on(siege.lines)
        if moments and time.monotonic() > begun + moments[0]:
            moments.pop(0)
            siege.kills += chance.choice(writers).kill()
        if time.monotonic() > begun + LONGEST:
            siege.what = "hangs"
        time.sleep(0.02)
    for writer in writers:
        writer.kill()
    if not siege.what:
        siege.what = tidied(place, writers, siege)
    return siege, writers[1].number == 1


def tidied(place: Path, writers: "list[Writer]", siege: Siege) -> str:
    """End the last request, if it was killed after its entry; what is wrong."""
    last = max(writers, key=lambda writer: writer.number)
    if any((place / "work" / "requests" / "work").glob("*")):
        last.start()
        code, error = ended(last.process, last.place)
        if code != 0:
            return f"exit code {code} at the end: {error[-300:]}"
    siege.look(place)
    return siege.what or ("" if len(siege.lines) == 1 + len(writers) else f"{len(siege.lines)} entries")


class Writer:
    """Adds one person's request to the ledger that it shares with another; each has its own home."""

    def __init__(self, besieged: Besieged, shared: Path, name: str) -> None:
        self.command = besieged.command(f"add {name}")
        self.forget = load_examples(self.command[4]).sha256()
        self.number = 0
        """Of its request, once that is in the record."""
        self.process: Any = None
        self.place = shared / name
        self.place.mkdir()
        (self.place / "work").symlink_to(shared / "work")

    def start(self) -> None:
        self.process = start(plain, self.place, self.command)

    def works(self) -> bool:
        return self.process is not None and self.process.exitcode is None

    def kill(self) -> bool:
        """Kill it, if it works; whether it died of that."""
        if not self.works():
            return False
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -signal.SIGKILL

    def refused(self) -> bool:
        return self.process.exitcode == 2 and BUSY in self.error()

    def wrong_end(self) -> str:
        """What is wrong with how it ended: done, refused and killed are not."""
        right = self.process.exitcode in (0, -signal.SIGKILL) or self.refused()
        return "" if right else f"a writer ended with {self.process.exitcode}: {self.error()[-300:]}"

    def go_on(self, lines: list[str]) -> None:
        """Start again, unless its request is in the record."""
        entries = [json.loads(line) for line in lines]
        mine = [one["entry"] for one in entries if one["kind"] == "request" and one["forget"]["sha256"] == self.forget]
        self.number, self.process = mine[0] if mine else 0, None
        if not mine:
            self.start()

    def error(self) -> str:
        return (self.place / "stderr").read_text(errors="replace")
