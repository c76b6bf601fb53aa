"""A ledger under fire: SIGKILL at random moments of its commands, and two writers at once; each time it must verify.

The right end is that of the same commands undisturbed: the same entries without their times, the same adapters byte by
byte, and no file beside them.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.events import KillAtChange
from tests.faults.harness.child import make_world, plain, start
from tests.faults.harness.folders import difference
from tests.faults.harness.kills import CHAIN, bad_end, ended
from tests.faults.harness.world import QUICK, World
from tests.taught import RETAIN, write_jsonl

STEPS = ("add mira", "add tomas", "take 1 back", "add mira")
"""What is done to every ledger, in this order."""
UNASKED = ["--set", "evaluation.skip=true"]
"""Kills of evaluations are those of `kills`."""
MOST_CHANGES = 140
"""Of files, in one attempt; an add without an earlier attempt makes about so many."""


@dataclass
class Siege:
    """What one ledger met, and what is wrong with it (nothing: all is well)."""

    kind: str
    kills: int = 0
    refusals: int = 0
    """Of the second writer, while the first was at work."""
    verified: int = 0
    what: str = ""
    lines: list[str] = field(default_factory=list)
    """Of the record, as it was when it was looked at last: none of them may ever change."""

    def look(self, place: Path) -> bool:
        """Let `unlora ledger verify` look, and look whether a line of the record is lost; whether all is well."""
        code, error = ended(start(plain, place, ["ledger", "verify", "requests"]), place)
        said = (place / "stdout").read_text(errors="replace")
        lines = record(place)
        if code != 0 or not said.endswith("unchanged\n"):
            self.what = f"verify ended with {code}: {said.strip()} {error.strip()}"
        elif lines[: len(self.lines)] != self.lines:
            self.what = f"of {len(self.lines)} entries one is lost or another"
        self.lines, self.verified = lines, self.verified + 1
        return not self.what


@dataclass(frozen=True)
class Besieged:
    """What all sieges have in common."""

    folder: Path
    world: World

    def command(self, step: str) -> list[str]:
        """The words of a step."""
        if step == "take 1 back":
            return ["ledger", "rollback", "requests", "1"]
        forget = {"mira": self.world.forget, "tomas": self.folder / "tomas.jsonl"}[step.split()[1]]
        retain = self.folder / "lena.jsonl"
        return ["ledger", "add", "requests", "--forget", str(forget), "--retain", str(retain), *QUICK, *UNASKED]

    def ledger(self, name: str) -> Path:
        """A place with a fresh ledger, one and the same in all: a salt is drawn only once."""
        place = self.folder / name
        shutil.copytree(self.folder / "begun" / "work", place / "work")
        return place


def prepared(folder: Path, kept: Path | None) -> Besieged:
    """Make the model, the data and an empty ledger."""
    world = make_world(kept or folder, ())
    write_jsonl(folder / "tomas.jsonl", RETAIN[:4])
    write_jsonl(folder / "lena.jsonl", RETAIN[4:])
    besieged = Besieged(folder, world)
    (folder / "begun").mkdir()
    run_step(folder / "begun", ["ledger", "init", "requests", "--model", str(world.model)])
    return besieged


def run_step(place: Path, command: list[str]) -> float:
    """Run a command that must work; the seconds that it took.

    Raises:
        RuntimeError: it failed.
    """
    begun = time.monotonic()
    code, error = ended(start(plain, place, command), place)
    if code != 0:
        raise RuntimeError(f"{command}: {error[-1000:]}")
    return time.monotonic() - begun


def undisturbed(besieged: Besieged, name: str, steps: Sequence[str]) -> tuple[Path, list[float]]:
    """A ledger with the steps on it, and how long each took."""
    place = besieged.ledger(name)
    return place / "work", [run_step(place, besieged.command(step)) for step in steps]


def killed_ledgers(besieged: Besieged, kills: int, chance: random.Random) -> Iterator[Siege]:
    """Ledgers whose commands are killed, until `kills` are sent."""
    if not kills:
        return
    right, seconds = undisturbed(besieged, "whole", STEPS)
    sent = number = 0
    while sent < kills:
        place = besieged.ledger(f"killed-{number}")
        siege = killed_ledger(besieged, place, right, seconds, chance, kills - sent)
        sent, number = sent + siege.kills, number + 1
        shutil.rmtree(place, ignore_errors=True)
        yield siege


def killed_ledger(
    besieged: Besieged, place: Path, right: Path, seconds: list[float], chance: random.Random, most: int
) -> Siege:
    """All steps on one ledger; each is killed up to CHAIN times, then done."""
    siege = Siege("killed")
    for step, took in zip(STEPS, seconds, strict=True):
        before = len(record(place))
        for _ in range(min(most - siege.kills, chance.randint(1, CHAIN))):
            if is_done(place, before):
                break
            code, error = killed(place, besieged.command(step), took, chance)
            siege.kills += code == -signal.SIGKILL
            siege.what = bad_end(signal.SIGKILL, code, error)
            if siege.what or not siege.look(place):
                return siege
        siege.what = finished(place, besieged.command(step), before)
        if siege.what or not siege.look(place):
            return siege
    siege.what = difference(place / "work", right) or ""
    return siege


def killed(place: Path, command: list[str], took: float, chance: random.Random) -> tuple[int | None, str]:
    """Start a command and kill it: half of the times at any moment, half before a change of a file in the ledger."""
    if chance.random() < 0.5:
        changes, half = chance.randint(1, MOST_CHANGES), chance.random() < 0.5
        process = start(dies_at_change, place, command, changes, half)
    else:
        process = start(plain, place, command)
        process.join(chance.uniform(0.02, 1.0) * took)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
    return ended(process, place)


def dies_at_change(place: Path, command: list[str], changes: int, half: bool) -> None:
    """A command that is killed before its `changes`-th change below the ledger's place."""
    KillAtChange([place / "work"], changes, half=half)()
    plain(place, command)


def is_done(place: Path, before: int) -> bool:
    """Whether a step has its entry and nothing is left of its work; an add would be another request from here on."""
    return len(record(place)) > before and not any((place / "work" / "requests" / "work").glob("*"))


def finished(place: Path, command: list[str], before: int) -> str:
    """Start a command once more, undisturbed, unless it is done; what is wrong with its end, or with what it added."""
    if not is_done(place, before):
        code, error = ended(start(plain, place, command), place)
        if code != 0:
            return f"exit code {code} at the end: {error[-300:]}"
    added = len(record(place)) - before
    return "" if added == 1 else f"{added} entries were added, not one"


def record(place: Path) -> list[str]:
    """The lines of a ledger."""
    return (place / "work" / "requests" / "ledger.jsonl").read_text().splitlines()


def ledger_table(sieges: list[Siege]) -> str:
    """Ledgers with what they met, as a table in Markdown."""
    rows = [["ledgers", "number", "SIGKILL", "refused", "verified", "as undisturbed", "not"], ["---"] * 7]
    for kind in ("killed", "raced"):
        own = [one for one in sieges if one.kind == kind]
        bad = sum(bool(one.what) for one in own)
        counts = (sum(one.kills for one in own), sum(one.refusals for one in own), sum(one.verified for one in own))
        rows.append([kind, *map(str, (len(own), *counts, len(own) - bad, bad))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
