"""What measuring importance costs, as a ratio to a plain LoRA forward and backward pass over the same tokens.

    python -m benchmarks.importance [--model embedded] [--rounds 3] [--json FILE]

A method is an importance preset, "contrast", "contrast_inputs", or a preset of full weights with the place of its
running sums: "fila-host", "fila-disk". Seconds are medians over rounds in one process, in which every method has its
turn, so that a slow spell of the machine hits all of them. Peak memory is that of a process of its own for each
method, model included; on a CPU it counts pages of files that are mapped, though the system can take them back at any
time. Nothing is trained.
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
from unlora.importance import ImportanceMap, estimate_importance
from unlora.importance.contrast_map import ContrastMap, estimate_contrast
from unlora.importance.offload import Offload
from unlora.models.load import LoadedModel, load_model
from unlora.models.quiet import quiet
from unlora.models.target_modules import find_target_modules, peft_target_modules
from unlora.runtime import peak_memory_bytes, resolve_device, resolve_dtype

PLAIN, CONTRAST = "plain", ("contrast", "contrast_inputs")
PLACES: dict[str, Offload] = {"": "none", "host": "host", "disk": "disk"}
METHODS = ("marginal", *CONTRAST, "vila", "fila", "fila-host", "fila-disk")
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
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="presets, PRESET-host or PRESET-disk")
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


def work(
    method: str, loaded: LoadedModel, sets: tuple[Batches, Batches]
) -> Callable[[], ImportanceMap | ContrastMap | None]:
    """One whole measurement by one method, or the plain pass."""
    if method == PLAIN:
        return lambda: plain_pass(loaded, sets)
    if method in CONTRAST:
        return lambda: estimate_contrast(loaded.model, *sets, rank=RANK, inputs_only=method == "contrast_inputs")
    preset, _, offload = method.partition("-")
    return lambda: estimate_importance(loaded.model, *sets, preset=preset, rank=RANK, offload=PLACES[offload])


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
        "model_bytes": 4 * sum(parameter.numel() for parameter in loaded.model.parameters()),
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


def bytes_on_disk(importance: ImportanceMap | ContrastMap) -> int:
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
    model, plain_peak = results["model_bytes"], results["plain_peak_bytes"]
    print(f"the model in float32: {model / 1e6:.0f} MB; 'above' plain's peak is counted in models")
    columns = f"{'seconds':>9}{'ratio':>8}{'min':>7}{'max':>7}{'peak':>11}{'peak/plain':>12}{'above':>8}{'on disk':>12}"
    print(f"{'method':<18}{columns}")
    peak = f"{plain_peak / 1e6:>8.0f} MB{1:>12.2f}{0:>8.2f}"
    print(f"{PLAIN:<18}{results['plain_seconds']:>9.2f}{1:>8.2f}{'':>14}{peak}")
    for method, figures in results["methods"].items():
        low, high = figures["ratio_spread"]
        print(
            f"{method:<18}{figures['seconds']:>9.2f}{figures['ratio']:>8.2f}{low:>7.2f}{high:>7.2f}"
            f"{figures['peak_bytes'] / 1e6:>8.0f} MB{figures['peak_bytes'] / plain_peak:>12.2f}"
            f"{(figures['peak_bytes'] - plain_peak) / model:>8.2f}{figures['disk_bytes'] / 1e6:>9.1f} MB"
        )


if __name__ == "__main__":
    main()
