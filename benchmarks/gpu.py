"""Everything that docs/performance says nothing about without a GPU, in one command of at most ten minutes.

    python -m benchmarks.gpu FOLDER [--seconds 600] [--device cuda]
    python -m benchmarks.gpu FOLDER --toy

At Llama-2-7B's shape with random weights: what measuring costs beside a plain pass and beside the released procedures,
the starting factors, a step with and without a second copy of the model, growth; then whole default runs at the shapes
of Llama-2-7B, Llama-3.2-1B and Llama-3-8B. Each part is a command of its own, writes a JSON into FOLDER, and is left
out and named when the time is up. The fastest published run of this kind that we know took 75 s at 8B on another device
(RepSelect, arXiv 2606.17168): it is no comparison on one machine. --toy takes tiny shapes on the CPU, to see that every
part still works.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import measuring
from unlora.artifacts import write_json

SHORTEST = 20.0
"""Seconds without which a part is not begun."""


class Part(NamedTuple):
    """One benchmark, as its own command."""

    name: str
    module: str
    words: str
    toy: str
    """Instead of `words`."""


PARTS = (
    Part("whole-7b", "whole", "--shape llama2-7b", "--shape tiny --examples 4"),
    Part("step", "step", "--shape llama2-7b --examples 16", "--shape tiny --examples 4 --rounds 1 --no-peaks"),
    Part(
        "extraction",
        "extraction",
        "--shape llama2-7b --examples 32 --rounds 2 --methods marginal vila contrast_inputs fila-host released-vila",
        "--shape tiny --examples 4 --rounds 1 --no-peaks --methods marginal vila contrast_inputs released-vila",
    ),
    Part("whole-8b", "whole", "--shape llama3-8b", "--shape tiny --layers 1 --examples 4"),
    Part("whole-1b", "whole", "--shape llama3-1b", "--shape tiny --layers 1 --examples 3"),
    Part("initialisation", "initialisation", "--shape llama2-7b --rounds 1", "--shape tiny --rounds 1"),
    Part("growth", "growth", "--rounds 2", "--rounds 1 --axes rank --works plain"),
    Part("released-fila", "extraction", "--shape llama2-7b --examples 8 --rounds 1 --methods released-fila", ""),
)
"""By what is missed most, so that what the time does not reach is missed least."""


def main(argv: Sequence[str]) -> None:
    """Parse, run the parts, say what was left out."""
    options = _parse(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    begun, outcome = time.monotonic(), {}
    for part in PARTS:
        left = options.seconds - (time.monotonic() - begun)
        words = part.toy if options.toy else part.words
        if words:
            outcome[part.name] = "left out: no time" if left < SHORTEST else _run(part, words, options, left)
            print(f"{part.name}: {outcome[part.name]}", flush=True)
    write_json(options.folder / "gpu.json", {"seconds": time.monotonic() - begun, "parts": outcome})
    if any(word.startswith("failed") for word in outcome.values()):
        raise SystemExit(1)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = measuring.parser("gpu", __doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--seconds", type=measuring.positive, default=600, help="after which nothing is begun or goes on"
    )
    parser.add_argument("--toy", action="store_true", help="tiny shapes on the CPU")
    return parser.parse_args(argv)


def _run(part: Part, words: str, options: argparse.Namespace, left: float) -> str:
    """Run one part and return how it ended."""
    device = "cpu" if options.toy else "cuda" if options.device == "auto" else options.device
    command = [sys.executable, "-m", f"benchmarks.{part.module}", *words.split(), "--device", device]
    command += ["--json", str(options.folder / f"{part.name}.json")]
    begun = time.monotonic()
    with (options.folder / f"{part.name}.txt").open("w", encoding="utf-8") as log:
        try:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=left, check=False).returncode
        except subprocess.TimeoutExpired:
            return f"stopped: the time was up after {left:.0f} s"
    took = f"{time.monotonic() - begun:.0f} s"
    return f"done in {took}" if code == 0 else f"failed in {took}, see {part.name}.txt"


if __name__ == "__main__":
    measuring.run(main)
