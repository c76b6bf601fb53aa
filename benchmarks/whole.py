"""Seconds and peak memory of a whole run of `unlora unlearn` on a shape, stage by stage, the start of Python included.

    python -m benchmarks.whole [--shape llama2-7b] [--layers N] [--examples 40] [--preset default] [--json FILE]

The model has random weights and is written to a temporary folder (13 GB for Llama-2-7B in bfloat16); the records are
questions about fictitious people, --examples to forget and three times as many to keep. A random model has nothing to
forget: what is measured is time and memory, and no level is aimed at.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import measuring, shapes
from unlora.artifacts import read_json
from unlora.data.people import generate_people
from unlora.data.records import ExampleSet
from unlora.data.user_jsonl import to_jsonl
from unlora.errors import InputError
from unlora.models.save import save_model
from unlora.runtime import resolve_device, resolve_dtype
from unlora_research.small_world import train_tokenizer

VOCABULARY = 256
"""Of the tokenizer, which no shape's is below."""


def main(argv: Sequence[str]) -> None:
    """Parse, measure, print, write."""
    options = _parse(argv)
    device = resolve_device(options.device)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        made = time.perf_counter()
        words = _command(options, Path(folder))
        made = time.perf_counter() - made
        begun = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begun
        if done.returncode != 0:
            raise InputError(f"the run failed: {done.stderr.strip().splitlines()[-1:]}")
        record = read_json(Path(folder) / "run" / "record.json")
    setting = {"shape": options.shape, "layers": options.layers, "preset": options.preset, "examples": options.examples}
    whole = {"seconds": seconds, "stages": record["stages"], "made_seconds": made}
    results = measuring.report("whole", argv, options, device, setting=setting, whole=whole)
    measuring.finish(results, lines, options.json)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = measuring.parser("whole", __doc__)
    shapes.add_options(parser)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--scratch", type=Path, help="where the model's folder is made; by default the system's")
    parser.set_defaults(shape="llama2-7b", examples=40, rounds=1)
    options = parser.parse_args(argv)
    if options.shape == shapes.SMOLLM2:
        parser.error("--shape smollm2: the whole run of a real model is `unlora demo`; give one of random weights")
    return options


def _command(options: argparse.Namespace, folder: Path) -> list[str]:
    """Make model and records, and return the command of the run."""
    people = generate_people(-(-4 * options.examples // shapes.QUESTIONS_A_PERSON), seed=options.seed)
    examples = people.examples[: 4 * options.examples]
    to_jsonl(ExampleSet("forget", examples[: options.examples]), folder / "forget.jsonl")
    to_jsonl(ExampleSet("retain", examples[options.examples :]), folder / "retain.jsonl")
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    model = shapes.random_model(options.shape, options.layers, device=device, dtype=dtype, seed=options.seed)
    tokenizer = train_tokenizer(people, VOCABULARY)
    save_model(model, tokenizer, folder / "model")
    words = [sys.executable, "-m", "unlora", "unlearn", "--preset", options.preset, "--model", folder / "model"]
    words += ["--forget", folder / "forget.jsonl", "--retain", folder / "retain.jsonl", "--template", "plain"]
    words += ["--device", options.device, "--dtype", options.dtype, "--seed", options.seed]
    words += ["--set", "evaluation.max_new_tokens=16", "--output", folder / "run"]
    return [str(word) for word in words]


def lines(results: dict[str, Any]) -> list[str]:
    """The figures, with what they were measured on."""
    setting, whole = results["setting"], results["whole"]
    rows = [
        [name, f"{stage['seconds']:.1f}", measuring.megabytes(stage["peak_memory_bytes"])]
        for name, stage in whole["stages"].items()
    ]
    return [
        *measuring.heading(results),
        f"{setting['shape']}, preset {setting['preset']}, {setting['examples']} records to forget; "
        f"the model was made and written in {whole['made_seconds']:.0f} s, which do not count",
        *measuring.table(
            ["stage", "seconds", "peak memory so far"], [*rows, ["whole command", f"{whole['seconds']:.1f}", ""]]
        ),
    ]


if __name__ == "__main__":
    measuring.run(main)
