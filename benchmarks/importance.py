"""What measuring importance costs, as a ratio to a plain LoRA forward and backward pass over the same tokens.

    python -m benchmarks.importance [--model embedded] [--rounds 3] [--json FILE]

Seconds are medians over rounds in one process, in which every method has its turn, so that a slow spell of the machine
hits all of them. Peak memory is that of a process of its own for each method, model included. Nothing is trained.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from unlora.artifacts import write_json
from unlora.data.collate import batches_by_length, collate
from unlora.data.people import generate_people
from unlora.data.tokenise import ExampleTokeniser
from unlora.importance import IMPORTANCE_PRESETS, ImportanceMap, estimate_importance
from unlora.models.load import LoadedModel, load_model
from unlora.models.quiet import quiet
from unlora.models.target_modules import find_target_modules, peft_target_modules
from unlora.runtime import peak_memory_bytes, resolve_device, resolve_dtype

PLAIN = "plain"
BATCH_SIZE = 8
RANK = 8

Batches = list[dict[str, torch.Tensor]]


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="hub id, folder, or embedded")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--people", type=int, default=4, help="fictitious people in each set, six questions each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(IMPORTANCE_PRESETS), choices=list(IMPORTANCE_PRESETS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = resolve_device(options.device)
    loaded = load_model(options.model, dtype=resolve_dtype("auto", device), device=device)
    sets = make_sets(loaded, options.people)
    if options.peak_of is not None:
        work(options.peak_of, loaded, sets)()
        print(peak_memory_bytes())
        return
    results = measure(loaded, sets, options)
    print_table(results, sets, options)
    if options.json is not None:
        write_json(options.json, results)


def make_sets(loaded: LoadedModel, people: int) -> tuple[Batches, Batches]:
    """Forget and retain batches about different people."""
    examples = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=512).encode_set(
        generate_people(2 * people)
    )
    pad = loaded.tokenizer.pad_token_id or 0

    def batches(part) -> Batches:
        return [collate([part[row] for row in rows], pad) for rows in batches_by_length(part, BATCH_SIZE)]

    half = len(examples) // 2
    return batches(examples[:half]), batches(examples[half:])


def work(method: str, loaded: LoadedModel, sets: tuple[Batches, Batches]) -> Callable[[], ImportanceMap | None]:
    """One whole measurement by one method, or the plain pass."""
    if method == PLAIN:
        return lambda: plain_pass(loaded, sets)
    return lambda: estimate_importance(loaded.model, *sets, preset=method, rank=RANK)


def plain_pass(loaded: LoadedModel, sets: tuple[Batches, Batches]) -> None:
    """Ordinary LoRA training without the optimiser: loss by the model itself, backward into the factors."""
    with quiet():
        names = peft_target_modules(loaded.model, list(find_target_modules(loaded.model)))
        model = get_peft_model(loaded.model, LoraConfig(r=RANK, target_modules=names, task_type="CAUSAL_LM"))
    try:
        for batch in (*sets[0], *sets[1]):
            model(**{key: value.to(model.device) for key, value in batch.items()}, use_cache=False).loss.backward()
        synchronise()
    finally:
        model.unload()


def synchronise() -> None:
    """Wait for the accelerator, where there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def measure(loaded: LoadedModel, sets: tuple[Batches, Batches], options: argparse.Namespace) -> dict:
    """Seconds of every method in turn, then peak memory and bytes on disk."""
    methods = [PLAIN, *options.methods]
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    disk: dict[str, int] = {}
    for round_number in range(options.rounds + 1):  # the first round warms up
        for method in methods:
            start = time.perf_counter()
            result = work(method, loaded, sets)()
            synchronise()
            if round_number:
                seconds[method].append(time.perf_counter() - start)
            if result is not None and method not in disk:
                disk[method] = bytes_on_disk(result)
    plain = statistics.median(seconds[PLAIN])
    return {
        "plain_seconds": plain,
        "plain_peak_bytes": peak_of(PLAIN, options),
        "methods": {
            method: {
                "seconds": statistics.median(seconds[method]),
                "ratio": statistics.median(a / b for a, b in zip(seconds[method], seconds[PLAIN], strict=True)),
                "ratio_spread": [
                    bound(a / b for a, b in zip(seconds[method], seconds[PLAIN], strict=True)) for bound in (min, max)
                ],
                "peak_bytes": peak_of(method, options),
                "disk_bytes": disk[method],
            }
            for method in options.methods
        },
    }


def bytes_on_disk(importance: ImportanceMap) -> int:
    """Size of the saved map."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "importance.safetensors"
        importance.save(file)
        return file.stat().st_size


def peak_of(method: str, options: argparse.Namespace) -> int:
    """Peak memory of a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.importance", "--peak-of", method, "--model", options.model]
    command += ["--device", options.device, "--people", str(options.people)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_table(results: dict, sets: tuple[Batches, Batches], options: argparse.Namespace) -> None:
    """The figures, with what they were measured on."""
    tokens = sum(int(batch["attention_mask"].sum()) for part in sets for batch in part)
    examples = sum(batch["labels"].shape[0] for part in sets for batch in part)
    print(f"{options.model}: {examples} examples, {tokens} tokens")
    print(f"batch {BATCH_SIZE}, rank {RANK}, {options.rounds} rounds, {torch.get_num_threads()} threads")
    print(f"{'method':<10}{'seconds':>9}{'ratio':>8}{'min':>7}{'max':>7}{'peak':>11}{'on disk':>12}")
    peak = f"{results['plain_peak_bytes'] / 1e6:>8.0f} MB"
    print(f"{PLAIN:<10}{results['plain_seconds']:>9.2f}{1:>8.2f}{'':>14}{peak}")
    for method, figures in results["methods"].items():
        low, high = figures["ratio_spread"]
        print(
            f"{method:<10}{figures['seconds']:>9.2f}{figures['ratio']:>8.2f}{low:>7.2f}{high:>7.2f}"
            f"{figures['peak_bytes'] / 1e6:>8.0f} MB{figures['disk_bytes'] / 1e6:>9.1f} MB"
        )


if __name__ == "__main__":
    main()
