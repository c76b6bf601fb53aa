"""Two processes on one folder: one works, the other is refused at once and says who is there; nothing is lost."""

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.harness.child import make_world, plain, prepare_server, start
from tests.faults.harness.folders import difference
from tests.faults.harness.kills import COMMANDS, LONGEST, ended, undisturbed
from tests.faults.harness.world import World

LATEST = 0.5
"""The second process starts within this share of the time that the command takes alone."""


@dataclass(frozen=True)
class Pair:
    """How one pair ended: what is wrong (nothing: all is well), and how long the refusal took."""

    command: str
    delay: float
    refused_after: float
    what: str


def run_pairs(count: int, seed: int, tell: Callable[[Pair], None], kept: Path | None = None) -> list[Pair]:
    """Run `count` pairs, the commands in turn."""
    prepare_server()
    chance = random.Random(seed)
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory(prefix="unlora-pairs-", ignore_cleanup_errors=True) as folder:
        world = make_world(kept or Path(folder), ("run",))
        whole = {name: undisturbed(name, Path(folder) / name, world) for name in COMMANDS}
        for number in range(count):
            name = list(COMMANDS)[number % len(COMMANDS)]
            place = Path(folder) / f"pair-{number}"
            try:
                pairs.append(run_whole_pair(name, place, world, whole[name], chance))
            except KeyboardInterrupt:
                break
            tell(pairs[-1])
    return pairs


def run_whole_pair(name: str, place: Path, world: World, whole: tuple[Path, float], chance: random.Random) -> Pair:
    """Start pairs until one overlaps."""
    found = None
    while found is None:
        found = run_pair(name, place, world, whole, chance.uniform(0, LATEST))
        shutil.rmtree(place, ignore_errors=True)
    return found


def run_pair(name: str, place: Path, world: World, whole: tuple[Path, float], share: float) -> Pair | None:
    """Start the command, and again after `share` of its time; each has its own output, the folder is one.

    None: the first was done before the second began, so that they were no pair.
    """
    places = [place / "one", place / "two"]
    for one in places:
        one.mkdir(parents=True)
    (place / "shared").mkdir()
    for one in places:
        (one / "work").symlink_to(place / "shared")
    delay = share * whole[1]
    first = start(plain, places[0], COMMANDS[name](world))
    first.join(delay)
    if first.exitcode is not None:
        return None
    begun = time.monotonic()
    second = start(plain, places[1], COMMANDS[name](world))
    processes = [first, second]
    took = [0.0, 0.0]
    while any(process.exitcode is None for process in processes) and time.monotonic() < begun + LONGEST:
        for turn, process in enumerate(processes):
            process.join(0.02)
            if process.exitcode is None:
                took[turn] = time.monotonic() - begun
    ends = [ended(process, one) for process, one in zip(processes, places, strict=True)]
    codes = sorted(str(code) for code, _ in ends)
    if "finished before" in ends[1][1]:
        return None
    if codes != ["0", "2"]:
        said = " / ".join(error.strip().splitlines()[-1] for _, error in ends if error.strip())
        return Pair(name, delay, min(took), f"exit codes {codes}: {said[-400:]}")
    loser = next(turn for turn, (code, _) in enumerate(ends) if code == 2)
    winner = 1 - loser
    line = ends[loser][1].strip().splitlines()[-1]
    if not line.startswith("error: ") or str(processes[winner].pid) not in line:
        return Pair(name, delay, took[loser], f"the refusal does not name process {processes[winner].pid}: {line}")
    if took[loser] > 0.5 * took[winner] and took[loser] > 5:
        return Pair(name, delay, took[loser], f"refused only after {took[loser]:.1f} of {took[winner]:.1f} s")
    return Pair(name, delay, took[loser], difference(place / "shared", whole[0]) or "")


def pair_table(pairs: list[Pair]) -> str:
    """Commands with their pairs, as a table in Markdown."""
    rows = [["command", "pairs", "one works, one is refused", "not", "slowest refusal, s"], ["---"] * 5]
    for name in (*COMMANDS, "all"):
        own = [pair for pair in pairs if name in (pair.command, "all")]
        bad = sum(bool(pair.what) for pair in own)
        slowest = max((pair.refused_after for pair in own), default=0.0)
        rows.append([name, str(len(own)), str(len(own) - bad), str(bad), f"{slowest:.1f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
