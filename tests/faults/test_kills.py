"""SIGKILL at random points, again and again, and the same command each time: the end is as if nothing had happened."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.events import KillAtChange
from tests.recipes.processes import KILLED, Running, run
from tests.taught import Taught
from unlora.training.callbacks import read_train_log
from unlora.training.checkpoints import last_complete_checkpoint

KILLS = 18
"""`make faults` has a hundred."""
Command = Callable[[Path], list[str]]


def command(taught: Taught, output: Path) -> list[str]:
    """A run of 8 steps with a checkpoint every third."""
    return [
        "unlearn", "--model", str(taught.target), "--forget", str(taught.forget), "--retain", str(taught.retain),
        "--set", "adapter.rank=4", "--set", "adapter.alpha=8", "--set", "training.learning_rate=5e-3",
        "--set", "training.epochs=8", "--set", "training.batch_size=4", "--set", "training.save_steps=3",
        "--set", "objective.retain_weight=1.3", "--set", "evaluation.max_new_tokens=4", "--output", str(output),
    ]  # fmt: skip


class Cache:
    """A cache of its own for every chain of attempts: scores found there would hide that they were lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, parent: Path) -> None:
        self.monkeypatch, self.parent, self.count = monkeypatch, parent, 0

    def fresh(self) -> Path:
        self.count += 1
        folder = self.parent / f"cache-{self.count}"
        self.monkeypatch.setenv("UNLORA_CACHE", str(folder))
        return folder


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cache:
    return Cache(monkeypatch, tmp_path)


def attempts(
    arguments: list[str], folders: list[Path], chance: random.Random, *, reach: int, second: Path | None
) -> Iterator[int]:
    """Start the command again and again; yield the number of kills after each, and stop when one gets to its end.

    Two kills of three come before a change of a file, one of them in the middle of what was being written; the third
    comes at any time. The first comes early, before importance is written.

    Args:
        arguments: of `unlora`.
        folders: where changes count.
        chance: draws the points.
        reach: largest number of changes that an attempt may make at first; each may make one more, so that all end.
        second: where the second kill comes, before one of the first changes there; None: anywhere, like the others.
    """
    kills = 0
    while True:
        kind = chance.choice(("change", "half", "time")) if kills else "change"
        if kills == 1 and second is not None:
            code, text = run(arguments, KillAtChange([second], chance.randint(1, 4)))
        elif kind == "time":
            running = Running(arguments)
            time.sleep(chance.uniform(0.1, 0.8))
            running.kill()
            code, text = running.finish()
        else:
            code, text = run(
                arguments, KillAtChange(folders, chance.randint(1, reach + kills if kills else 6), half=kind == "half")
            )
        assert code in (KILLED, 0), text
        if code == 0:
            return
        kills += 1
        yield kills


def done(folder: Path) -> dict[str, int]:
    """Units of work that are finished, by the time of their file; a checkpoint by its step."""
    files = [folder / "importance.safetensors", folder / "adapter" / "adapter_model.safetensors"]
    files += [*folder.glob("scores/*.jsonl"), folder / "evaluation.json"]
    units = {file.name: file.stat().st_mtime_ns for file in files if file.is_file()}
    checkpoint = last_complete_checkpoint(folder / "checkpoints")
    if checkpoint is not None:
        units["checkpoint"] = int(checkpoint.name.removeprefix("checkpoint-"))
    return units


def assert_nothing_lost(before: dict[str, int], after: dict[str, int]) -> None:
    """What was finished is not made again; evaluation.json is written anew from the scores."""
    for unit, value in before.items():
        if unit == "checkpoint":
            assert after.get(unit, 0) >= value or "adapter_model.safetensors" in after
        elif unit != "evaluation.json":
            assert after[unit] == value, unit


def stage(units: dict[str, int]) -> str:
    """What the next process has to do."""
    if "importance.safetensors" not in units:
        return "importance"
    if "adapter_model.safetensors" not in units:
        return "training goes on" if "checkpoint" in units else "training"
    return "end" if "evaluation.json" in units else "evaluation"


def contents(folder: Path) -> dict[str, Any]:
    """All that a run says, without times."""
    record = json.loads((folder / "record.json").read_text())
    record["stages"] = sorted(record["stages"])
    names = ["config.yaml", "importance.safetensors", "evaluation.json", "adapter/adapter_model.safetensors"]
    names += ["adapter/adapter_config.json", "scores/target.jsonl", "scores/unlearned.jsonl"]
    log = [{key: line[key] for key in line if key != "seconds"} for line in read_train_log(folder / "train_log.jsonl")]
    assert (folder / "report.html").is_file()
    everything = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name: (folder / name).read_bytes() for name in names} | {
        "record": record,
        "log": log,
        "files": sorted(everything),
    }


def test_killed_at_random_a_run_ends_as_if_nothing_had_happened(taught: Taught, tmp_path: Path, cache: Cache):
    cache.fresh()
    code, text = run(command(taught, tmp_path / "whole"))
    assert code == 0, text
    expected = contents(tmp_path / "whole")
    log = expected.pop("log")

    chance, kills, runs = random.Random(5), 0, 0
    stages: set[str] = set()
    wanted = {"importance", "training goes on", "saving", "evaluation"}  # tests.recipes.test_resume has others
    while kills < KILLS or (not stages >= wanted and kills < 4 * KILLS):  # Where a kill falls is a matter of luck.
        runs += 1
        folder, scores = tmp_path / f"run-{runs}", cache.fresh()
        before: dict[str, int] = {}
        second = (None, folder / ".adapter.", folder / "checkpoints")[runs % 3]
        for _ in attempts(command(taught, folder), [folder, scores], chance, reach=60, second=second):
            after = done(folder)
            assert_nothing_lost(before, after)
            before = after
            kills += 1
            stages.add("saving" if any(folder.glob(".adapter.*")) else stage(after))
        assert_nothing_lost(before, done(folder))
        found = contents(folder)
        assert found.pop("log") == log
        assert found == expected
    assert stages >= wanted
