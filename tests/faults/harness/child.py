"""Runs one input in a process of its own: limits on time and memory, a home and a cache of its own, output in files."""

import json
import os
import resource
import signal
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.harness.world import PARTS, World
from tests.recipes.processes import SERVER

CPU_SECONDS = 60
"""Of processor time, not of the clock: other work on the machine makes no input hang."""
MEMORY = 4 * 2**30
"""Bytes of address space that a command may take beyond what the imports took."""
PRELOAD = (
    "tests.faults.harness.child",
    "tests.faults.harness.areas",
    "tests.taught",
    "unlora.cli.main",
    "unlora.cli.tables",
    "unlora.cli.console",
    "unlora.recipes.audit",
    "unlora.recipes.evaluate",
    "unlora.recipes.export",
    "unlora.recipes.fine_tune",
    "unlora.recipes.importance",
    "unlora.recipes.ledger.add",
    "unlora.recipes.ledger.roll_back",
    "unlora.recipes.ledger.verify",
    "unlora.recipes.plan.advice",
    "unlora.recipes.sequence",
    "unlora.recipes.unlearn",
    "unlora.report.page",
    "unlora.data.check",
    "unlora_research.sigma",
    "unlora_research.study",
    "transformers.models.llama.modeling_llama",
    "peft",
)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None
    """Exit code, negative for a signal; None: it was stopped after the time of the clock."""
    output: str
    error: str
    seconds: float
    changed: tuple[str, ...] = ()
    """Files below the folder of the input, and temporary ones, that came, went or changed."""


def prepare_server() -> None:
    """Let the server that forks the processes import everything, so that no command's time holds the imports."""
    SERVER.set_forkserver_preload(list(PRELOAD))
    first = start(os.getpid)
    first.join()


def enter(place: Path) -> None:
    """Make `place` the whole world of this process: current folder, home, cache, temporary files; no network."""
    import huggingface_hub.constants

    os.setpgid(0, 0)  # so that what it starts can be stopped with it
    for name in ("work", "tmp", "home"):
        (place / name).mkdir(parents=True, exist_ok=True)
    os.environ.update(
        HOME=str(place / "home"), TMPDIR=str(place / "tmp"), UNLORA_CACHE=str(place / "cache"),
        TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", COLUMNS="200",
    )  # fmt: skip
    tempfile.tempdir = None
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    os.chdir(place / "work")


def catch_output(place: Path) -> None:
    """Let what is printed go to files."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        with (place / name).open("wb") as file:
            os.dup2(file.fileno(), number)


def limit() -> None:
    """Bound the processor time and the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_command(arguments: list[str]) -> None:
    """Be `unlora ARGUMENTS` from here on."""
    from unlora.cli.main import main

    main(arguments, prog_name="unlora")


def meet(area: str, name: str, place: Path, world: World) -> None:
    """Make an input and run its command; what lies there before is noted for `changes`."""
    from tests.faults.harness.areas import cases

    enter(place)
    arguments = cases(area)[name].make(place / "work", world)
    (place / "before.json").write_text(json.dumps([arguments, tree(place)]))
    catch_output(place)
    limit()
    run_command(arguments)


def judge_result(area: str, name: str, place: Path, world: World) -> None:
    """Run the check of a command that worked, and write down what it finds."""
    from tests.faults.harness.areas import cases

    enter(place)
    printed = (place / "stdout").read_text(errors="replace")
    catch_output(place)
    check = cases(area)[name].right.check
    found = check(place / "work", world, printed) if check is not None else None
    (place / "judged.json").write_text(json.dumps(found))


def make_world(folder: Path, parts: Iterable[str]) -> World:
    """Build the model and the data, then run the commands that make `parts`; each in a fresh process.

    What `folder` has already is not made again.
    """
    world = World(folder)
    started: list[tuple[str, Any, Any]] = [("model", teach, folder)]
    for part in parts:
        started += [(f"{part}-{turn}", plain, command) for turn, command in enumerate(PARTS[part](world))]
    for name, target, what in started:
        place = folder / "made" / name
        if (place / "done").is_file():
            continue
        place.mkdir(parents=True, exist_ok=True)
        code, text = finish(start(target, place, what), place, 900)
        if code != 0:
            raise RuntimeError(f"the world cannot be made: {what}: {text[-2000:]}")
        (place / "done").touch()
    return world


def teach(place: Path, folder: Path) -> None:
    """Build the model and the data."""
    from tests.taught import build_taught

    enter(place)
    build_taught(folder)


def plain(place: Path, arguments: list[str]) -> None:
    """Run a command in `place` without limits."""
    enter(place)
    catch_output(place)
    run_command(arguments)


def start(target: Any, *arguments: Any) -> Any:
    """A process forked from the server."""
    process = SERVER.Process(target=target, args=arguments)
    process.start()
    return process


def finish(process: Any, place: Path, wall: float) -> tuple[int | None, str]:
    """Wait for a process and stop what it has started; its exit code (None: stopped) and what it said last."""
    process.join(wall)
    code = process.exitcode
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.join()
    error = place / "stderr"
    return code, error.read_text(errors="replace") if error.is_file() else ""


def run_case(area: str, name: str, place: Path, world: World, wall: float) -> Ended:
    """Run an input to its end."""
    begun = time.monotonic()
    code, error = finish(start(meet, area, name, place, world), place, wall)
    before = json.loads((place / "before.json").read_text())[1] if (place / "before.json").is_file() else None
    if before is None:
        raise RuntimeError(f"{area}/{name}: the input could not be made: {error}")
    return Ended(
        code, (place / "stdout").read_text(errors="replace"), error, time.monotonic() - begun, changes(before, place)
    )


def tree(place: Path) -> dict[str, list[Any]]:
    """Kind, size and time of every file that a command could touch below `place`."""
    found: dict[str, list[Any]] = {}
    for top in ("work", "tmp"):
        for file in sorted((place / top).rglob("*")):
            status = file.lstat()
            kind = "folder" if file.is_dir() and not file.is_symlink() else "file"
            found[str(file.relative_to(place))] = [
                kind,
                *([status.st_size, status.st_mtime_ns] if kind == "file" else []),
            ]
    return found


def changes(before: dict[str, list[Any]], place: Path) -> tuple[str, ...]:
    """Files that came, went or changed since `before`."""
    after = tree(place)
    return tuple(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
