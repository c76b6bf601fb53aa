"""What every benchmark here shares: methods in turn, peak memory, the machine, one JSON, one line for bad input.

Seconds are taken in rounds in which every method has its turn, so that a slow spell of the machine hits all of them;
what is reported are medians, and ratios within a round with the smallest and the largest of them. With an accelerator
seconds are the wall clock's. Without one they are the processor's, of all threads together: other work on the machine
then counts little; with OMP_NUM_THREADS=1 both clocks agree on an idle machine.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import psutil
import torch
from torch.profiler import ProfilerActivity, profile

from unlora.artifacts import write_json
from unlora.errors import InputError, UnloraError
from unlora.runtime import peak_memory_bytes, versions

PACKAGES = ("python", "platform", "unlora", "torch", "transformers", "peft")


class Timed(NamedTuple):
    """Seconds of the part of a method that is compared, and what it gave."""

    seconds: float
    result: Any = None


Method = Callable[[], Timed]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def parser(name: str, text: str | None, *, peaks: bool = False) -> Parser:
    """Return a parser with the options of every benchmark.

    Args:
        name: of the module.
        text: its docstring.
        peaks: whether it measures peak memory too, each method in a process of its own (`peak_of`).
    """
    made = Parser(
        prog=f"python -m benchmarks.{name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--device", default="auto", help="auto, cpu or cuda")
    made.add_argument("--rounds", type=positive, default=3, help="after one that warms up")
    made.add_argument("--seed", type=int, default=0, help="of random weights and data")
    made.add_argument("--json", type=Path, help="file to write")
    if peaks:
        made.add_argument("--no-peaks", dest="peaks", action="store_false", help="leave peak memory out")
        made.add_argument("--peak-of", help=argparse.SUPPRESS)
    return made


def positive(text: str) -> int:
    """Return a number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {number}")
    return number


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Call `main` with the command line's arguments; what goes wrong is said in one line."""
    try:
        main(sys.argv[1:])
    except UnloraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except torch.OutOfMemoryError as error:
        print(f"error: out of memory ({str(error).splitlines()[0]}); take fewer --layers or tokens", file=sys.stderr)
        sys.exit(1)


def clock() -> float:
    """Seconds: of the wall clock with an accelerator, of the processor without."""
    return time.perf_counter() if torch.accelerator.is_available() else time.process_time()


def timed(work: Callable[[], Any]) -> Timed:
    """Seconds of `work`, what the accelerator has been given included."""
    synchronise()
    start = clock()
    result = work()
    synchronise()
    return Timed(clock() - start, result)


def synchronise() -> None:
    """Wait for the accelerator, where there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def in_turn(methods: Mapping[str, Method], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every method in every round, and what each gave in the round that warms up, which is not timed."""
    first = {name: method().result for name, method in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            seconds[name].append(method().seconds)
    return seconds, first


def compare(seconds: Sequence[float], baseline: Sequence[float], times: float = 1) -> dict[str, Any]:
    """Median seconds, and the median, smallest and largest ratio within a round; all of them `times` as large."""
    ratios = [times * own / other for own, other in zip(seconds, baseline, strict=True)]
    return {
        "seconds": times * statistics.median(seconds),
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
    }


def peak_of(module: str, argv: Sequence[str], method: str) -> int:
    """Peak memory in bytes of a process that runs one method of a benchmark and nothing else.

    On a CPU it is the process's, with the interpreter and the libraries (about half a GB) and with pages of files that
    are mapped; on an accelerator what torch has allocated there.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *argv, "--peak-of", method]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["ended without a word"])[-1].removeprefix("error: ")
        raise (InputError if done.returncode == InputError.exit_code else UnloraError)(f"{method}: {said}")
    return int(done.stdout.split()[-1])


def print_peak(method: Method) -> None:
    """Run the method that `peak_of` asks for and print the peak."""
    method()
    print(peak_memory_bytes())


def allocated_peak(work: Callable[[], Any], device: torch.device) -> int:
    """Most bytes of tensors that are held at a time while `work` runs, beyond what was held before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    held = most = 0
    for event in sorted((event for event in events if event.get("name") == "[memory]"), key=lambda one: one["ts"]):
        held += event["args"]["Bytes"]
        most = max(most, held)
    return most


def report(
    name: str, argv: Sequence[str], options: argparse.Namespace, device: torch.device, **figures: Any
) -> dict[str, Any]:
    """Return what is printed and written: the figures, with the command, the machine and the versions."""
    found = versions()
    return {
        "benchmark": name,
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *argv]),
        "seed": options.seed,
        "rounds": options.rounds,
        "machine": machine(device),
        "versions": {package: found[package] for package in PACKAGES},
        **figures,
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on; the load is what else ran, in processes, over the last minute."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "load": round(os.getloadavg()[0], 2),
        "clock": "wall" if torch.accelerator.is_available() else "processor",
    }


def _cpu() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        named = (line.partition(":")[2].strip() for line in facts.read_text().splitlines() if "model name" in line)
        return next(named, platform.machine())
    return platform.processor() or platform.machine()


def heading(results: Mapping[str, Any]) -> list[str]:
    """Lines that say what was run, and on what."""
    facts = results["machine"]
    machine_line = f"{facts['device']}: {facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads"
    how = f"load {facts['load']}; {results['rounds']} rounds, seconds of the {facts['clock']}"
    return [results["command"], f"{machine_line}, {how}"]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown, padded so that it reads as it is."""
    cells = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def ratio_cell(figures: Mapping[str, Any]) -> str:
    """The ratio with its spread."""
    low, high = figures["ratio_spread"]
    return f"{figures['ratio']:.2f} [{low:.2f}, {high:.2f}]"


def megabytes(count: float) -> str:
    """Bytes in MB of a million."""
    return f"{count / 1e6:.1f} MB" if count < 1e7 else f"{count / 1e6:.0f} MB"


def finish(results: dict[str, Any], lines: Callable[[dict[str, Any]], list[str]], file: Path | None) -> None:
    """Print the tables, and write the JSON that they were made from."""
    print("\n".join(lines(results)))
    if file is not None:
        write_json(file, results)
