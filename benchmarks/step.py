"""What a step of unlearning costs with the adapters-off reference, beside one that keeps a second copy of the model.

    python -m benchmarks.step [--shape smollm2|llama2-7b|tiny] [--layers N] [--examples N] [--rounds 3] [--json FILE]

A step is forward, backward and AdamW on --batch-size forget examples, each with a retain example; ratios are to a plain
LoRA step (the model's own loss) on the same tokens. NPO needs the reference's log-probabilities of the forget examples,
KL the reference's whole predictions of the retain examples. Where these come from is in a method's name:

    cached         computed once before the run, as `unlora.training` does for NPO (what that once takes is printed)
    adapters-off   by the same model in every step, as `unlora.training` does for KL
    second-copy    by another copy of the model in every step
    anchored       cached, and the adapter has rank 2r, half of it frozen, as where B0 is not zero

Peak memory is that of a process of its own for each method.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import measuring, shapes
from benchmarks.measuring import Method, Timed, positive, timed
from benchmarks.shapes import Subject
from unlora.adapters.anchored import attach_plain_adapter
from unlora.adapters.initial import InitialFactors
from unlora.data.forget_retain import ForgetRetainPairs
from unlora.errors import InputError
from unlora.losses import ForgetInputs, Objective, RetainInputs
from unlora.models.target_modules import find_target_modules
from unlora.starts.attach import attach_anchored_adapter
from unlora.training.parts import BatchPlan, ForgetRetainCollator, Part, read_parts
from unlora.training.reference import Reference

PLAIN = "plain"
OBJECTIVES = {
    "npo": Objective("npo", retain="nll", retain_weight=1.6),
    "kl": Objective("ga", retain="kl", retain_weight=1.6),
}
METHODS = ("npo cached", "npo anchored", "npo adapters-off", "npo second-copy", "kl adapters-off", "kl second-copy")
RANK, SCALING, LEARNING_RATE = 8, 2, 1e-5


class Data(NamedTuple):
    """One batch, and the pairs that it comes from."""

    pairs: ForgetRetainPairs
    batch: dict[str, Tensor]


def main(argv: Sequence[str]) -> None:
    """Parse, measure, print, write."""
    options = _parse(argv)
    if options.peak_of is not None:
        measuring.print_peak(make_methods(options, shapes.subject(options), [options.peak_of])[options.peak_of])
        return
    names = [PLAIN, *options.methods]
    peaks = {name: measuring.peak_of("step", argv, name) for name in names} if options.peaks else {}
    subject = shapes.subject(options)
    seconds, _ = measuring.in_turn(make_methods(options, subject, names), options.rounds)
    data = make_data(subject, options)
    methods = {
        name: {**measuring.compare(seconds[name], seconds[PLAIN]), "peak_bytes": peaks.get(name)} for name in names
    }
    once = timed(lambda: _cached(subject, data, options.batch_size))
    setting = {
        "shape": options.shape,
        "dtype": str(subject.model.dtype).removeprefix("torch."),
        "batch_size": options.batch_size,
        "batch_tokens": int(data.batch["attention_mask"].sum()),
        "rank": options.rank,
        "cached_forget_tokens": sum(len(example.input_ids) for example in subject.forget),
        "cached_seconds": once.seconds,
        **subject.facts(),
    }
    results = measuring.report("step", argv, options, subject.model.device, setting=setting, methods=methods)
    measuring.finish(results, lines, options.json)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = measuring.parser("step", __doc__, peaks=True)
    shapes.add_options(parser)
    add_batch_size(parser)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    return parser.parse_args(argv)


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """The option that says how large a step is."""
    parser.add_argument("--batch-size", type=positive, default=4, help="forget examples in a step")
    parser.set_defaults(rank=RANK)


def make_data(subject: Subject, options: argparse.Namespace) -> Data:
    if options.batch_size > options.examples:
        raise InputError(f"--batch-size {options.batch_size}: there are {options.examples} examples.")
    pairs = ForgetRetainPairs(subject.forget, subject.retain, epochs=1, seed=options.seed)
    collate = ForgetRetainCollator(subject.pad_token_id, ("forget", "retain"))
    batch = collate([pairs[index] for index in range(options.batch_size)])
    return Data(pairs, {key: value.to(subject.model.device) for key, value in batch.items()})


def make_methods(options: argparse.Namespace, subject: Subject, names: Sequence[str]) -> dict[str, Method]:
    """Every method, as something that is timed; the second copy is made where one of them needs it."""
    data = make_data(subject, options)
    copy = shapes.subject(options).model if any(name.endswith("second-copy") for name in names) else None
    return {name: partial(_measure, name, subject, data, copy, options.rank) for name in names}


def _measure(name: str, subject: Subject, data: Data, copy: Any, rank: int) -> Timed:
    """One step from a fresh adapter; the loss is the result."""
    with adapted(subject, rank, anchored=name.endswith("anchored")) as model:
        loss = loss_of(name, model, data, copy, subject.pad_token_id)
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], LEARNING_RATE, weight_decay=0)

        return timed(lambda: take_step(loss, optimiser))


def take_step(loss: Callable[[], Tensor], optimiser: torch.optim.Optimizer) -> float:
    """Forward, backward and the optimiser; the loss before it."""
    value = loss()
    value.backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return float(value.detach())


@contextmanager
def adapted(subject: Subject, rank: int = RANK, *, anchored: bool = False) -> Iterator[Any]:
    """The model with an adapter, which is taken off again."""
    targets = find_target_modules(subject.model)
    if anchored:
        draw = torch.Generator().manual_seed(0)
        factors = {
            name: InitialFactors(
                lora_b=torch.randn(target.d_out, rank, generator=draw) * target.d_out**-0.5,
                lora_a=torch.randn(rank, target.d_in, generator=draw) * target.d_in**-0.5,
                relative_residual=None,
                status="random",
                floored_fraction=None,
            )
            for name, target in targets.items()
        }
        model = attach_anchored_adapter(subject.model, rank=rank, alpha=SCALING * rank, factors=factors)
    else:
        model = attach_plain_adapter(subject.model, targets, rank=rank, alpha=SCALING * rank)
    model.train()
    try:
        yield model
    finally:
        model.unload()
        subject.model.requires_grad_(False).eval()


def loss_of(name: str, model: Any, data: Data, copy: Any, pad_token_id: int) -> Callable[[], Tensor]:
    """What a method minimises; what it needs once is computed here."""
    if name == PLAIN:
        inputs = {key: data.batch[key] for key in ("input_ids", "attention_mask", "labels")}
        return lambda: model(**inputs, use_cache=False).loss
    kind, source = name.split()
    objective = OBJECTIVES[kind]
    parts = BatchPlan.of(objective).parts
    wanted: tuple[Part] = ("forget",) if kind == "npo" else ("retain",)
    once = None
    if source in ("cached", "anchored"):
        size = len(data.batch["forget_index"])
        scores = Reference(model, pad_token_id=pad_token_id, batch_size=size).sequence_log_probs(
            "forget", data.pairs.forget
        )
        index = data.batch["forget_index"]
        once = scores[index.cpu()].to(index.device)

    def loss() -> Tensor:
        reference = {}
        if once is None:
            off = nullcontext() if source == "second-copy" else model.disable_adapter()
            with torch.no_grad(), off:
                reference = read_parts(copy if source == "second-copy" else model, data.batch, parts, wanted, {})
        policy = read_parts(model, data.batch, parts, parts, {})
        log_probs = once if "forget" not in reference else reference["forget"].predictions.sequence_log_probs()
        retain = reference["retain"].predictions if "retain" in reference else None
        return objective(
            ForgetInputs(policy["forget"].predictions, reference_log_probs=log_probs),
            RetainInputs(policy["retain"].predictions, reference=retain),
        ).total

    return loss


def _cached(subject: Subject, data: Data, batch_size: int) -> Tensor:
    """Compute what is computed once: the reference's log-probabilities of the whole forget set."""
    with adapted(subject) as model:
        reference = Reference(model, pad_token_id=subject.pad_token_id, batch_size=batch_size)
        return reference.sequence_log_probs("forget", data.pairs.forget)


def lines(results: dict[str, Any]) -> list[str]:
    """The figures, with what they were measured on."""
    setting, methods = results["setting"], results["methods"]
    plain = methods[PLAIN]["peak_bytes"]
    rows = []
    for name, figures in methods.items():
        peak, kind = figures["peak_bytes"], name.partition(" ")[0]
        copy = methods.get(f"{kind} second-copy", {}).get("peak_bytes")
        rows.append(
            [
                name,
                f"{figures['seconds']:.3f}",
                measuring.ratio_cell(figures),
                measuring.megabytes(peak) if peak is not None else "-",
                f"{peak / plain:.2f}" if peak is not None else "-",
                f"{peak / copy:.2f}" if peak is not None and copy is not None else "-",
            ]
        )
    return [
        *measuring.heading(results),
        f"{setting['shape']}, {setting['layers']} layers, {setting['parameters']:,} parameters in {setting['dtype']} "
        f"({setting['model_bytes'] / 1e6:.0f} MB); {setting['batch_size']} pairs, "
        f"{setting['batch_tokens']} tokens a step, rank {setting['rank']}",
        f"once: {setting['cached_seconds']:.2f} s for the {setting['cached_forget_tokens']} tokens of the forget set",
        *measuring.table(
            ["step", "seconds", "ratio to plain", "peak memory", "peak / plain", "peak / second copy"], rows
        ),
    ]


if __name__ == "__main__":
    measuring.run(main)
