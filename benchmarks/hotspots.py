"""Where the time of one extraction or one unlearning step goes: operations by torch's profiler, functions by Python's.

    python -m benchmarks.hotspots extraction [--method marginal] [--shape smollm2] [--layers N] [--json FILE]
    python -m benchmarks.hotspots step [--method "npo cached"] [--shape smollm2] [--layers N] [--json FILE]

Methods are those of `benchmarks.extraction` and `benchmarks.step`. Both profilers look at a run of their own, after one
that warms up, and slow it down: read the shares. An operation's share is its own, without what it calls; a function's
includes what it calls, the backward pass of hooks among it.
"""

import argparse
import cProfile
import pstats
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks import extraction, measuring, shapes, step
from benchmarks.measuring import Method
from unlora.errors import InputError

KNOWN = {"extraction": (extraction.PLAIN, *extraction.METHODS), "step": (step.PLAIN, *step.METHODS)}
TOP = 12


def main(argv: Sequence[str]) -> None:
    """Parse, profile, print, write."""
    options = _parse(argv)
    subject = shapes.subject(options)
    if options.work == "extraction":
        method = extraction.make_methods(subject, [options.method])[options.method]
    else:
        method = step.make_methods(options, subject, [options.method])[options.method]
    method()
    operations, total = _operations(method, on_device=subject.model.device.type != "cpu")
    functions, whole = _functions(method)
    results = measuring.report(
        "hotspots",
        argv,
        options,
        subject.model.device,
        setting={"work": options.work, "method": options.method, "shape": options.shape, **subject.facts()},
        operation_seconds=total,
        operations=operations,
        function_seconds=whole,
        functions=functions,
    )
    measuring.finish(results, lines, options.json)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = measuring.parser("hotspots", __doc__)
    parser.add_argument("work", choices=list(KNOWN))
    parser.add_argument("--method", help="by default marginal, or npo cached")
    shapes.add_options(parser)
    step.add_batch_size(parser)
    options = parser.parse_args(argv)
    known = KNOWN[options.work]
    options.method = options.method or known[1]
    if options.method not in known:
        raise InputError(f"--method: '{options.method}' is none of {', '.join(known)}.")
    return options


def _operations(method: Method, *, on_device: bool) -> tuple[list[dict[str, Any]], float]:
    """The operations that take most time themselves, and the seconds of all of them."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    with profile(activities=activities) as profiler:
        method()
    events = profiler.key_averages()

    def seconds(event: Any) -> float:
        return (event.self_device_time_total if on_device else event.self_cpu_time_total) / 1e6

    total = sum(seconds(event) for event in events)
    first = sorted(events, key=seconds, reverse=True)[:TOP]
    return [{"name": e.key, "calls": e.count, "seconds": seconds(e), "share": seconds(e) / total} for e in first], total


def _functions(method: Method) -> tuple[list[dict[str, Any]], float]:
    """Our functions that take most time with what they call, and the seconds of the whole."""
    profiler = cProfile.Profile(measuring.clock)
    profiler.runcall(method)
    stats: Any = pstats.Stats(profiler)
    rows = []
    for (file, _, name), (_, calls, _, seconds, _) in stats.stats.items():
        parts = Path(file).parts
        if "unlora" in parts and not name.startswith("<"):
            rows.append(
                {"name": f"{'.'.join(parts[parts.index('unlora') + 1 :])}:{name}", "calls": calls, "seconds": seconds}
            )
    rows.sort(key=lambda row: row["seconds"], reverse=True)
    return [{**row, "share": row["seconds"] / stats.total_tt} for row in rows[:TOP]], stats.total_tt


def lines(results: dict[str, Any]) -> list[str]:
    """Both lists."""
    setting = results["setting"]

    def rows(kind: str) -> list[list[str]]:
        return [
            [f"`{row['name']}`", str(row["calls"]), f"{row['seconds']:.2f}", f"{row['share']:.1%}"]
            for row in results[kind]
        ]

    return [
        *measuring.heading(results),
        f"{setting['work']}, {setting['method']}: {setting['shape']}, {setting['layers']} layers, "
        f"{setting['examples']} examples, {setting['tokens']} tokens",
        *measuring.table(
            [f"operation ({results['operation_seconds']:.2f} s)", "calls", "own seconds", "share"], rows("operations")
        ),
        "",
        *measuring.table(
            [f"function ({results['function_seconds']:.2f} s)", "calls", "seconds", "share"], rows("functions")
        ),
    ]


if __name__ == "__main__":
    measuring.run(main)
