"""Signals at random moments, and the same command again until it is done: nothing is lost, and nothing left over."""

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.harness.child import make_world, plain, prepare_server, start
from tests.faults.harness.folders import difference
from tests.faults.harness.world import World

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
SHARES = {"unlearn": 3, "audit": 3, "finetune": 3, "study": 1}
"""Of the signals; a study takes ten times as long as the others."""
OVER = ("already exists", "exists already")
LONGEST = 3600
"""Seconds of the clock after which a command hangs: beside other programs a study, left a tenth of a core, took over
600."""
CHAIN = 4
"""Most signals that one folder meets."""
COMMANDS: dict[str, Callable[[World], list[str]]] = {
    "unlearn": lambda world: world.unlearn(),
    "audit": lambda world: [*world.audit(world.run), "--output", "out"],
    "finetune": lambda world: world.finetune(),
    "study": lambda world: world.small_study(),
}


@dataclass(frozen=True)
class Chain:
    """One folder: the signals that its command met, and what is wrong at the end (nothing: all is well)."""

    command: str
    signals: tuple[str, ...]
    what: str


def run_kills(count: int, seed: int, tell: Callable[[Chain], None], kept: Path | None = None) -> list[Chain]:
    """Send `count` signals, spread over the commands; each chain ends with a start that nothing disturbs."""
    prepare_server()
    chance = random.Random(seed)
    chains: list[Chain] = []
    with tempfile.TemporaryDirectory(prefix="unlora-kills-", ignore_cleanup_errors=True) as folder:
        world = make_world(kept or Path(folder), ("run",))
        whole = {name: undisturbed(name, Path(folder) / name, world) for name in COMMANDS}
        sent = dict.fromkeys(COMMANDS, 0)
        while sum(sent.values()) < count:
            name = min(sent, key=lambda one: sent[one] / SHARES[one])
            place = Path(folder) / f"chain-{len(chains)}"
            try:
                chain = disturbed(name, place, world, whole[name], chance, count - sum(sent.values()))
            except KeyboardInterrupt:
                break
            sent[name] += len(chain.signals)
            if not chain.signals:  # done before its signal: the machine has become quicker than when it was timed
                whole[name] = (whole[name][0], 0.7 * whole[name][1])
            chains.append(chain)
            tell(chain)
            shutil.rmtree(place, ignore_errors=True)
    return chains


def undisturbed(name: str, place: Path, world: World) -> tuple[Path, float]:
    """The folder that the command makes, and how long it took.

    Raises:
        RuntimeError: it failed.
    """
    place.mkdir()
    begun = time.monotonic()
    code, error = ended(start(plain, place, COMMANDS[name](world)), place)
    if code != 0:
        raise RuntimeError(f"{name}: {error[-1000:]}")
    return place / "work", time.monotonic() - begun


def disturbed(
    name: str, place: Path, world: World, whole: tuple[Path, float], chance: random.Random, most: int
) -> Chain:
    """One chain of starts and signals."""
    place.mkdir()
    if name == "study" and chance.random() < 0.75:  # else the small world that it works in is built under fire too
        shutil.copytree(whole[0].parent / "cache", place / "cache")
    met: list[str] = []
    for _ in range(min(most, chance.randint(1, CHAIN))):
        process = start(plain, place, COMMANDS[name](world))
        process.join(chance.uniform(0.02, 1.0) * whole[1])
        if process.exitcode is not None:  # it was done before its signal came
            break
        sent = chance.choice(SIGNALS)
        os.kill(process.pid, sent)
        met.append(sent.name)
        code, error = ended(process, place)
        if wrong := bad_end(sent, code, error):
            return Chain(name, tuple(met), wrong)
    code, error = ended(start(plain, place, COMMANDS[name](world)), place)
    # What a finished finetune made is not written over.
    done_before = name == "finetune" and code == 2 and any(words in error for words in OVER)
    if code != 0 and not done_before:
        return Chain(name, tuple(met), f"exit code {code} at the end: {error[-300:]}")
    return Chain(name, tuple(met), difference(place / "work", whole[0]) or "")


def bad_end(sent: signal.Signals, code: int | None, error: str) -> str:
    """What is wrong with how a command ended after a signal: Ctrl-C is answered with one line, the others end it."""
    if "Traceback (most recent call last)" in error:
        return f"a traceback after {sent.name}: {error.strip().splitlines()[-1]}"
    right = {signal.SIGKILL: (-9, 0), signal.SIGINT: (130, 0), signal.SIGTERM: (-15, 143, 0)}[sent]
    return "" if code in right else f"exit code {code} after {sent.name}: {error[-300:]}"


def ended(process: Any, place: Path) -> tuple[int | None, str]:
    """Wait for the end of a process; exit code (None: it hangs, and is stopped) and what it said last."""
    process.join(LONGEST)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    error = place / "stderr"
    return code, error.read_text(errors="replace") if error.is_file() else ""


def kill_table(chains: list[Chain]) -> str:
    """Commands with their chains and signals, as a table in Markdown."""
    kinds = [one.name for one in SIGNALS]
    rows = [["command", "folders", *kinds, "as undisturbed", "not"], ["---"] * (len(kinds) + 4)]
    for name in (*COMMANDS, "all"):
        own = [chain for chain in chains if name in (chain.command, "all")]
        met = [sum(chain.signals.count(kind) for chain in own) for kind in kinds]
        bad = sum(bool(chain.what) for chain in own)
        rows.append([name, str(len(own)), *map(str, met), str(len(own) - bad), str(bad)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
