"""What measuring importance costs, as a ratio to a plain LoRA forward and backward pass over the same tokens.

    python -m benchmarks.extraction [--shape smollm2|llama2-7b|mixture|tiny] [--layers N] [--examples N] [--json FILE]

A method is an importance preset, "contrast", "contrast_inputs", a preset of full weights with the place of its running
sums ("fila-host", "fila-disk"), or the released code's procedure (`benchmarks.released`): "released-vila",
"released-fila". Of that one pass over the forget set is timed and counted ten times: so often it does the same work.

The plain pass is ordinary LoRA training without the optimiser. Of a mixture every expert is measured, and the plain
pass has an adapter on the same matrices, through PEFT's `target_parameters`; "plain-layers" has one on the linear
layers alone, the cheapest there is. Peak memory is that of a process of its own for each
method, model included. Nothing is trained.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model

from benchmarks import measuring, released, shapes
from benchmarks.measuring import Method, Timed, timed
from benchmarks.shapes import Batches, Subject
from unlora.errors import InputError
from unlora.importance import IMPORTANCE_PRESETS, ImportanceMap, estimate_importance
from unlora.importance.contrast_map import ContrastMap, estimate_contrast
from unlora.importance.offload import Offload
from unlora.models.experts import find_all, find_experts, peft_target_parameters, whole_tensors
from unlora.models.quiet import quiet
from unlora.models.target_modules import find_target_modules, peft_target_modules

PLAIN, PLAIN_LAYERS, CONTRAST = "plain", "plain-layers", ("contrast", "contrast_inputs")
RELEASED: dict[str, released.Released] = {"released-vila": "vila", "released-fila": "fila"}
PLACES: dict[str, Offload] = {"": "none", "host": "host", "disk": "disk"}
METHODS = ("marginal", "vila", *CONTRAST, "fila", "fila-disk", *RELEASED)
BATCH_SIZE = 8
RANK = 8


def main(argv: Sequence[str]) -> None:
    """Parse, measure, print, write."""
    options = _parse(argv)
    if options.peak_of is not None:
        subject = shapes.subject(options)
        sets = subject.batches(BATCH_SIZE)
        measuring.print_peak(lambda: run_once(options.peak_of, subject, sets))  # saving would bring in mapped pages
        return
    names = [PLAIN, *options.methods]
    # Before the model is built here: a large one would not fit an accelerator twice.
    peaks = {name: measuring.peak_of("extraction", argv, name) for name in names} if options.peaks else {}
    subject = shapes.subject(options)
    seconds, maps = measuring.in_turn(make_methods(subject, names), options.rounds)
    methods = {}
    for name in names:
        times = released.PASSES if name in RELEASED else 1
        methods[name] = {
            **measuring.compare(seconds[name], seconds[PLAIN], times),
            "passes_timed": 1,
            "passes_counted": times,
            "peak_bytes": peaks.get(name),
            "disk_bytes": maps[name],
        }
    setting = {
        "shape": options.shape,
        "dtype": str(subject.model.dtype).removeprefix("torch."),
        "batch_size": BATCH_SIZE,
        "released_batch_size": released.BATCH_SIZE,
        "rank": RANK,
        **subject.facts(),
    }
    results = measuring.report("extraction", argv, options, subject.model.device, setting=setting, methods=methods)
    measuring.finish(results, lines, options.json)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = measuring.parser("extraction", __doc__, peaks=True)
    shapes.add_options(parser)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD", help=", ".join(METHODS))
    options = parser.parse_args(argv)
    for name in options.methods:
        preset, _, place = name.partition("-")
        known = name in (PLAIN_LAYERS, *RELEASED, *CONTRAST) or (preset in IMPORTANCE_PRESETS and place in PLACES)
        if not known:
            raise InputError(f"--methods: '{name}' is none of {', '.join(METHODS)}.")
    return options


def make_methods(subject: Subject, names: Sequence[str]) -> dict[str, Method]:
    """Every method, as something that is timed; its result is the map's bytes on disk."""
    sets = subject.batches(BATCH_SIZE)
    return {name: partial(_measure, name, subject, sets) for name in names}


def _measure(name: str, subject: Subject, sets: tuple[Batches, Batches]) -> Timed:
    done = run_once(name, subject, sets)
    if name in (PLAIN, PLAIN_LAYERS):
        return done
    on_disk = released.bytes_on_disk if name in RELEASED else bytes_on_disk
    return Timed(done.seconds, on_disk(done.result))


def run_once(name: str, subject: Subject, sets: tuple[Batches, Batches]) -> Timed:
    """One whole measurement by one method, or the plain pass; the map is the result."""
    if name in (PLAIN, PLAIN_LAYERS):
        return plain_pass(subject, sets, experts=name == PLAIN)
    if name in RELEASED:
        return released.measure(RELEASED[name], subject, passes=1, wrap=timed)  # type: ignore[return-value]
    model: Any = subject.model
    names = list(find_all(model)) if find_experts(model) else None
    options: dict[str, Any] = {"rank": RANK, "target_modules": names}
    if name in CONTRAST:
        return timed(lambda: estimate_contrast(model, *sets, inputs_only=name == "contrast_inputs", **options))
    preset, _, place = name.partition("-")
    return timed(lambda: estimate_importance(model, *sets, preset=preset, offload=PLACES[place], **options))


def plain_pass(subject: Subject, sets: tuple[Batches, Batches], *, experts: bool = True) -> Timed:
    """Ordinary LoRA training without the optimiser: loss by the model itself, backward into the factors."""
    with quiet():
        names = peft_target_modules(subject.model, list(find_target_modules(subject.model)))
        tensors = whole_tensors(find_experts(subject.model)) if experts else {}
        parameters = peft_target_parameters(subject.model, tensors) or None
        config = LoraConfig(r=RANK, target_modules=names, target_parameters=parameters, task_type="CAUSAL_LM")
        model: Any = get_peft_model(subject.model, config)  # type: ignore[arg-type]

    def train() -> None:
        for batch in (*sets[0], *sets[1]):
            model(**{key: value.to(model.device) for key, value in batch.items()}, use_cache=False).loss.backward()

    try:
        return Timed(timed(train).seconds)
    finally:
        model.unload()
        subject.model.requires_grad_(False)


def bytes_on_disk(importance: ImportanceMap | ContrastMap) -> int:
    """Size of the saved map."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "importance.safetensors"
        importance.save(file)
        return file.stat().st_size


def lines(results: dict[str, Any]) -> list[str]:
    """The figures, with what they were measured on."""
    setting, methods = results["setting"], results["methods"]
    plain = methods[PLAIN]
    rows = []
    for name, figures in methods.items():
        peak, disk = figures["peak_bytes"], figures["disk_bytes"]
        rows.append(
            [
                name,
                f"{figures['seconds']:.2f}",
                measuring.ratio_cell(figures),
                measuring.megabytes(peak) if peak is not None else "-",
                f"{peak / plain['peak_bytes']:.2f}" if peak is not None else "-",
                measuring.megabytes(disk) if disk is not None else "-",
            ]
        )
    return [
        *measuring.heading(results),
        f"{setting['shape']}, {setting['layers']} layers, {setting['parameters']:,} parameters in {setting['dtype']} "
        f"({setting['model_bytes'] / 1e6:.0f} MB); {setting['examples']} examples, {setting['tokens']} tokens, "
        f"batch {setting['batch_size']}, rank {setting['rank']}",
        f"released: batch {setting['released_batch_size']}, one pass timed and counted {released.PASSES} times",
        *measuring.table(["method", "seconds", "ratio to plain", "peak memory", "peak / plain", "on disk"], rows),
    ]


if __name__ == "__main__":
    measuring.run(main)
