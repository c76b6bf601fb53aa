"""What a command costs before it does anything, as a ratio to `python -c "import click"`.

    python -m benchmarks.startup [--rounds 15]

Every command has its turn in every round; counted is the processor's time of the whole process, not the wall clock.
Bytecode is written to a folder of this run first, as an installation does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

BASE = "import click"
COMMANDS = {
    BASE: ["-c", BASE],
    "import unlora": ["-c", "import unlora"],
    "unlora --help": ["-m", "unlora", "--help"],
    "unlora unlearn --help": ["-m", "unlora", "unlearn", "--help"],
}


def main(argv: Sequence[str]) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args(argv).rounds
    print("| command | seconds | ratio |\n|---|---|---|")
    for name, seconds in measure(rounds).items():
        median, low, high = statistics.median(seconds[0]), min(seconds[1]), max(seconds[1])
        print(f"| `{name}` | {median:.3f} | {statistics.median(seconds[1]):.2f} [{low:.2f}, {high:.2f}] |")


def measure(rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of every command in every round, and their ratios to the base's in the same round."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        found: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for number in range(rounds + 1):
            for name, words in COMMANDS.items():
                seconds = processor_seconds([sys.executable, *words], environment)
                if number > 0:  # The first writes the bytecode.
                    found[name].append(seconds)
    return {
        name: (one, [mine / base for mine, base in zip(one, found[BASE], strict=True)]) for name, one in found.items()
    }


def processor_seconds(command: Sequence[str], environment: dict[str, str]) -> float:
    """User and system time of one process."""
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {started.returncode}")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(sys.argv[1:])
