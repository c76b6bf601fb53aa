"""How time and memory grow with tokens, examples, rank, width, depth and experts: slopes on log-log axes, and bends.

    python -m benchmarks.growth [--axes tokens rank ...] [--works marginal ...] [--rounds 5] [--json FILE]

One axis at a time leaves the base: a Llama of random weights, 4 blocks of width 256, 4 + 4 examples of 64 tokens (half
of them scored), rank 8; experts are those of a block of Qwen3-MoE's class of the same size, two for a token. Works are
importance measurements ("marginal", "vila", "contrast_inputs") in batches of four, the "initialisation" from marginal's
map, a "step" of unlearning (NPO, reference cached) on as many pairs as there are examples, and a "plain" LoRA step;
these two adapt the linear layers alone, the others experts too. Memory is the most that is held in tensors at a time
beyond the model and the batch.

A slope of 1 is proportional. A curve is fitted by one straight line, and by two that meet at a point of the axis; it
bends where two lines leave less than half of one line's squared error and their slopes differ by 0.25 or more.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy
import torch

from benchmarks import measuring, shapes, step
from benchmarks.measuring import Timed, timed
from benchmarks.shapes import Subject
from unlora.importance import estimate_importance
from unlora.importance.contrast_map import SKETCH_COLUMNS, estimate_contrast
from unlora.models.experts import find_all
from unlora.runtime import resolve_device, resolve_dtype
from unlora.starts.initialise import initial_factors

AXES: dict[str, tuple[int, ...]] = {
    "tokens": (16, 32, 64, 128, 256, 512),
    "examples": (4, 8, 16, 32, 64),
    "rank": (2, 4, 8, 16, 32, 64),
    "width": (64, 128, 256, 512, 1024),
    "depth": (1, 2, 4, 8, 16),
    "experts": (2, 4, 8, 16, 32),
}
BASE = {"tokens": 64, "examples": 4, "rank": 8, "width": 256, "depth": 4, "experts": 0}
WORKS = ("plain", "marginal", "vila", "contrast_inputs", "initialisation", "step")
BATCH_SIZE = 4
"""Of importance measurements."""
STEEPER, BETTER = 0.25, 0.5
"""What counts as a bend: difference of the slopes, and share of one line's squared error that may be left."""


class Fit(NamedTuple):
    """One line through all points, and two that meet at `bend` where that is a better account."""

    slope: float
    bend: float | None = None
    before: float | None = None
    after: float | None = None


def main(argv: Sequence[str]) -> None:
    """Parse, measure, print, write."""
    parser = measuring.parser("growth", __doc__)
    parser.set_defaults(rounds=5)
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--points", type=measuring.positive, help="only the first so many of each axis")
    options = parser.parse_args(argv)
    device = resolve_device(options.device)
    curves = {axis: _axis(axis, AXES[axis][: options.points], options, device) for axis in options.axes}
    setting = {"base": BASE, "dtype": _name(resolve_dtype("auto", device))}
    results = measuring.report("growth", argv, options, device, setting=setting, curves=curves)
    measuring.finish(results, lines, options.json)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _axis(axis: str, values: Sequence[int], options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Seconds and bytes of every work at every point, all points in turn."""
    methods: dict[tuple[str, int], Callable[[], Timed]] = {}
    for value in values:
        point = BASE | {axis: value}
        subject = _subject(point, options.seed, device)
        for work in options.works:
            methods[work, value] = make_method(work, subject, point["rank"])
    named = {f"{work} {value}": method for (work, value), method in methods.items()}
    seconds, _ = measuring.in_turn(named, options.rounds)
    found: dict[str, Any] = {"values": list(values), "works": {}}
    for work in options.works:
        times = [statistics.median(seconds[f"{work} {value}"]) for value in values]
        memory = [measuring.allocated_peak(methods[work, value], device) for value in values]
        found["works"][work] = {
            "seconds": times,
            "seconds_fit": fit(values, times)._asdict(),
            "bytes": memory,
            "bytes_fit": fit(values, memory)._asdict(),
        }
    return found


def _subject(point: dict[str, int], seed: int, device: torch.device) -> Subject:
    width, heads, count = point["width"], point["width"] // 32, point["examples"]
    sizes = {
        "vocab_size": 1024,
        "hidden_size": width,
        "intermediate_size": 5 * width // 2,
        "num_attention_heads": heads,
        "num_hidden_layers": point["depth"],
    }
    if point["experts"]:
        sizes |= {"num_key_value_heads": heads, "head_dim": 32, "moe_intermediate_size": width // 2}
        sizes |= {"num_experts": point["experts"], "num_experts_per_tok": 2}
    shape = shapes.MIXTURE if point["experts"] else "tiny"
    model = shapes.random_model(shape, None, device=device, dtype=resolve_dtype("auto", device), seed=seed, **sizes)
    lengths = (point["tokens"] // 2, point["tokens"] - point["tokens"] // 2)
    examples = shapes.random_examples(2 * count, 1024, seed, lengths)
    return Subject(model, examples[:count], examples[count:], pad_token_id=0)


def make_method(work: str, subject: Subject, rank: int) -> Callable[[], Timed]:
    """One work at one point, as something that is timed."""
    if work in ("plain", "step"):
        count = len(subject.forget)
        options = argparse.Namespace(batch_size=count, examples=count, seed=0, rank=rank)
        name = step.PLAIN if work == "plain" else "npo cached"
        return step.make_methods(options, subject, [name])[name]
    sets, targets = subject.batches(BATCH_SIZE), find_all(subject.model)
    names = list(targets)
    if work == "contrast_inputs":
        columns = max(SKETCH_COLUMNS, rank)
        return partial(
            timed,
            lambda: estimate_contrast(
                subject.model, *sets, rank=rank, target_modules=names, inputs_only=True, sketch_columns=columns
            ),
        )
    if work == "initialisation":
        importance = estimate_importance(subject.model, *sets, preset="marginal", target_modules=names)
        return partial(timed, lambda: initial_factors(targets, importance, rank=rank, scaling=2.0))
    return partial(
        timed, lambda: estimate_importance(subject.model, *sets, preset=work, rank=rank, target_modules=names)
    )


def fit(values: Sequence[float], measured: Sequence[float]) -> Fit:
    """Fit a line to the logarithms, and two lines that meet at one of the points between the first and the last."""
    x, y = numpy.log(numpy.asarray(values, float)), numpy.log(numpy.asarray(measured, float))
    if len(x) < 2:
        return Fit(math.nan)
    (_, slope), error = _least_squares([numpy.ones_like(x), x], y)
    whole = Fit(float(slope))
    if len(x) < 5 or error < 1e-12:
        return whole
    candidates = []
    for knot in x[1:-1]:
        (_, before, change), left = _least_squares([numpy.ones_like(x), x, numpy.maximum(x - knot, 0)], y)
        candidates.append((left, knot, before, before + change))
    left, knot, before, after = min(candidates)
    if left > BETTER * error or abs(after - before) < STEEPER:
        return whole
    return Fit(float(slope), float(math.exp(knot)), float(before), float(after))


def _least_squares(columns: list[numpy.ndarray], y: numpy.ndarray) -> tuple[numpy.ndarray, float]:
    matrix = numpy.stack(columns, axis=1)
    solution = numpy.linalg.lstsq(matrix, y, rcond=None)[0]
    return solution, float(((matrix @ solution - y) ** 2).sum())


def lines(results: dict[str, Any]) -> list[str]:
    """A table an axis."""
    base = ", ".join(f"{name} {value}" for name, value in results["setting"]["base"].items())
    said = [*measuring.heading(results), f"base: {base}"]
    for axis, curves in results["curves"].items():
        first, last = curves["values"][0], curves["values"][-1]
        rows = [
            [
                work,
                _ends([1000 * seconds for seconds in curve["seconds"]], "ms"),
                _fit_cell(curve["seconds_fit"]),
                _ends([count / 1e6 for count in curve["bytes"]], "MB"),
                _fit_cell(curve["bytes_fit"]),
            ]
            for work, curve in curves["works"].items()
        ]
        columns = [f"{axis} {first} to {last}", "time", "slope", "memory", "slope"]
        said += ["", *measuring.table(columns, rows)]
    return said


def _ends(values: Sequence[float], unit: str) -> str:
    return f"{values[0]:.1f} to {values[-1]:.1f} {unit}"


def _fit_cell(one: dict[str, float | None]) -> str:
    if one["bend"] is None:
        return f"{one['slope']:.2f}"
    return f"{one['before']:.2f}, from {one['bend']:.0f} on {one['after']:.2f}"


if __name__ == "__main__":
    measuring.run(main)
