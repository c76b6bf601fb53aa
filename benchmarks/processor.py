"""What each measure for a faster training step on a processor is worth, one added after the other.

    python -m benchmarks.processor [--shape smollm2|llama2-7b|tiny] [--batch-size 8] [--rounds 3] [--json FILE]

A step is forward and backward of the default preset's objective on --batch-size forget and as many retain examples of
random tokens, as long as TOFU's vary; ratios are to the first way, which is how it was done before. Where bfloat16 is
no faster than float32 (no AMX), the last three ways are no faster either, and `auto` does not take them.
"""

import argparse
import ctypes
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch

from benchmarks import measuring, shapes
from benchmarks.measuring import Method, Timed, timed
from benchmarks.shapes import Subject
from benchmarks.step import Data, adapted, add_batch_size, make_data
from unlora.adapters.products import bfloat16_products
from unlora.losses import ForgetInputs, Objective, RetainInputs
from unlora.models.attention import fastest_attention
from unlora.runtime import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
from unlora.training import parts
from unlora.training.parts import read_parts

OBJECTIVE = Objective("ihl", retain="nll", retain_weight=1.6)
HANDED_BACK = 128 * 1024
"""glibc's own bound, from which on freed blocks are handed back to the system."""


class Way(NamedTuple):
    """How a step is made."""

    kept: bool = True
    """Freed memory, for the next step."""
    grouped: bool = True
    """Rows of like length are read together."""
    dtype: torch.dtype = torch.float32
    products: bool = False
    """The adapter's, in bfloat16."""
    plain_attention: bool = False


WAYS = {
    "float32, one padded pass": Way(kept=False, grouped=False),
    "+ freed memory kept": Way(grouped=False),
    "+ rows of like length": Way(),
    "+ bfloat16 weights": Way(dtype=torch.bfloat16),
    "+ the adapter's products": Way(dtype=torch.bfloat16, products=True),
    "+ plain attention": Way(dtype=torch.bfloat16, products=True, plain_attention=True),
}
FIRST = next(iter(WAYS))


def main(argv: Sequence[str]) -> None:
    """Parse, measure, print, write."""
    options = _parse(argv)
    if options.peak_of is not None:
        measuring.print_peak(make_methods(options, [options.peak_of])[options.peak_of])
        return
    peaks = {name: measuring.peak_of("processor", argv, name) for name in WAYS} if options.peaks else {}
    methods = make_methods(options, list(WAYS))
    seconds, losses = measuring.in_turn(methods, options.rounds)
    data = make_data(_subject(options, torch.float32), options)
    figures = {
        name: {**measuring.compare(seconds[name], seconds[FIRST]), "loss": losses[name], "peak_bytes": peaks.get(name)}
        for name in WAYS
    }
    mask = data.batch["attention_mask"]
    setting = {
        "shape": options.shape,
        "batch_size": options.batch_size,
        "batch_tokens": int(mask.sum()),
        "padded_tokens": mask.numel(),
        "grouped_tokens": sum(
            len(rows) * int(mask[rows].sum(dim=1).max()) for rows in parts.groups_of_like_length(mask)
        ),
        "rank": options.rank,
    }
    results = measuring.report("processor", argv, options, torch.device("cpu"), setting=setting, methods=figures)
    measuring.finish(results, lines, options.json)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = measuring.parser("processor", __doc__, peaks=True)
    shapes.add_options(parser)
    add_batch_size(parser)
    parser.set_defaults(batch_size=8)
    return parser.parse_args(argv)


def _subject(options: argparse.Namespace, dtype: torch.dtype) -> Subject:
    name = str(dtype).removeprefix("torch.")
    subject = shapes.subject(argparse.Namespace(**{**vars(options), "dtype": name, "device": "cpu"}))
    examples = shapes.random_examples(2 * options.examples, subject.model.config.vocab_size, options.seed)
    return subject._replace(forget=examples[: options.examples], retain=examples[options.examples :])


def make_methods(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Method]:
    """Every way, as something that is timed."""
    subjects = {dtype: _subject(options, dtype) for dtype in {WAYS[name].dtype for name in names}}
    data = make_data(next(iter(subjects.values())), options)
    return {name: partial(_measure, WAYS[name], subjects[WAYS[name].dtype], data, options.rank) for name in names}


def _measure(way: Way, subject: Subject, data: Data, rank: int) -> Timed:
    """One step from a fresh adapter; the loss is the result."""
    _keep(way.kept)
    with adapted(subject, rank) as model, ExitStack() as stack:
        if not way.grouped:
            stack.enter_context(mock.patch.object(parts, "MOST_GROUPS", 1))
        if way.products:
            stack.enter_context(bfloat16_products(model))
        if way.plain_attention:
            stack.enter_context(fastest_attention(model, longest=data.pairs.longest))

        def step() -> float:
            read = read_parts(model, data.batch, ("forget", "retain"), ("forget", "retain"), {})
            loss: Any = OBJECTIVE(
                ForgetInputs(read["forget"].predictions), RetainInputs(read["retain"].predictions)
            ).total
            loss.backward()
            return float(loss.detach())

        return timed(step)


def _keep(kept: bool) -> None:
    """As `unlora.runtime.keep_freed_memory`, there and back."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1 if kept else HANDED_BACK)
        mallopt(M_MMAP_THRESHOLD, 2**31 - 1 if kept else HANDED_BACK)


def lines(results: dict[str, Any]) -> list[str]:
    """The figures, with what they were measured on."""
    setting, methods = results["setting"], results["methods"]
    rows = [
        [
            name,
            f"{figures['seconds']:.2f}",
            measuring.ratio_cell(figures),
            measuring.megabytes(figures["peak_bytes"]) if figures["peak_bytes"] is not None else "-",
            f"{figures['loss']:.4f}",
        ]
        for name, figures in methods.items()
    ]
    return [
        *measuring.heading(results),
        f"{setting['shape']}; {setting['batch_size']} pairs of {setting['batch_tokens']} tokens, padded "
        f"{setting['padded_tokens']}, in groups {setting['grouped_tokens']}; rank {setting['rank']}",
        *measuring.table(["a step", "seconds", "ratio", "peak memory", "loss"], rows),
    ]


if __name__ == "__main__":
    measuring.run(main)
