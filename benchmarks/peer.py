"""A step of unlearning as the field's usual tool takes it, beside ours: seconds and peak memory.

    python -m benchmarks.peer [--shape smollm2|llama2-7b|tiny] [--layers N] [--batch-size 8] [--rounds 3] [--json FILE]

`peer` is NPO as OpenUnlearning trains it, written as a plain script of transformers: every weight is trained, a second
copy of the model is the reference and is asked in every step, forget and retain examples are two padded batches whose
logits are computed for every position, AdamW. `npo` and `default` are steps of our presets of these names: forward and
backward as the trainer takes them, of an adapter, and AdamW of what is trained. All three read the same examples. Each
takes one step that is not counted, in which the optimiser makes its state. Ratios are to `peer`.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import measuring, shapes
from benchmarks.measuring import Method, Timed, timed
from benchmarks.shapes import Subject
from benchmarks.step import Data, adapted, add_batch_size, loss_of, make_data, take_step
from unlora.data.collate import collate
from unlora.losses import ForgetInputs, Objective, RetainInputs
from unlora.training.parts import read_parts

PEER = "peer"
METHODS = (PEER, "npo", "default")
LEARNING_RATE = 1e-5
BETA = 0.1
"""OpenUnlearning's, and our own."""
DEFAULT = Objective("ihl", retain="nll", retain_weight=1.6)


def main(argv: Sequence[str]) -> None:
    """Parse, measure, print, write."""
    options = _parse(argv)
    if options.peak_of is not None:
        measuring.print_peak(make_methods(options, shapes.subject(options), [options.peak_of])[options.peak_of])
        return
    peaks = {name: measuring.peak_of("peer", argv, name) for name in METHODS} if options.peaks else {}
    subject = shapes.subject(options)
    seconds, losses = measuring.in_turn(make_methods(options, subject, METHODS), options.rounds)
    methods = {
        name: {**measuring.compare(seconds[name], seconds[PEER]), "loss": losses[name], "peak_bytes": peaks.get(name)}
        for name in METHODS
    }
    setting = {"shape": options.shape, "batch_size": options.batch_size, "rank": options.rank, **subject.facts()}
    results = measuring.report("peer", argv, options, subject.model.device, setting=setting, methods=methods)
    measuring.finish(results, lines, options.json)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = measuring.parser("peer", __doc__, peaks=True)
    shapes.add_options(parser)
    add_batch_size(parser)
    parser.set_defaults(batch_size=8)
    return parser.parse_args(argv)


def make_methods(options: argparse.Namespace, subject: Subject, names: Sequence[str]) -> dict[str, Method]:
    """Every way, as something that is timed and gives its loss."""
    data = make_data(subject, options)
    made: dict[str, Method] = {}
    for name in names:
        if name == PEER:
            made[name] = _stepping(_Peer(shapes.subject(options), subject, data, options.batch_size))
        else:
            made[name] = lambda name=name: _ours(name, subject, data, options.rank)
    return made


class _Peer:
    """The model that is trained, whole, and its frozen copy."""

    def __init__(self, subject: Subject, reference: Subject, data: Data, batch_size: int) -> None:
        self.model = subject.model.train().requires_grad_(True)
        self.reference = reference.model
        pairs = [data.pairs[index] for index in range(batch_size)]
        sides = [[pair["forget"] for pair in pairs], [pair["retain"] for pair in pairs if pair["retain"] is not None]]
        batches = [collate(side, subject.pad_token_id) for side in sides]
        self._sets = [{name: value.to(subject.model.device) for name, value in batch.items()} for batch in batches]

    def loss(self) -> Tensor:
        forget, retain = self._sets
        with torch.no_grad():
            before = sequence_log_probs(self.reference, forget)
        ratio = sequence_log_probs(self.model, forget) - before
        npo = -2 / BETA * F.logsigmoid(-BETA * ratio).mean()
        inputs = {name: retain[name] for name in ("input_ids", "attention_mask", "labels")}
        return npo + 1.6 * self.model(**inputs, use_cache=False).loss


def sequence_log_probs(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Sum of the answer's log-probabilities, an example each; the logits of every position are computed."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    labels = batch["labels"][:, 1:]
    nll = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels, ignore_index=-100, reduction="none")
    return -nll.sum(dim=1)


def _stepping(peer: _Peer) -> Method:
    optimiser = torch.optim.AdamW(peer.model.parameters(), LEARNING_RATE, weight_decay=0.01)
    return lambda: timed(lambda: take_step(peer.loss, optimiser))


def _ours(name: str, subject: Subject, data: Data, rank: int) -> Timed:
    with adapted(subject, rank) as model:
        loss = (
            loss_of("npo cached", model, data, None, subject.pad_token_id) if name == "npo" else _default(model, data)
        )
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=0)
        take_step(loss, optimiser)
        return timed(lambda: take_step(loss, optimiser))


def _default(model: Any, data: Data) -> Callable[[], Tensor]:
    def loss() -> Tensor:
        read = read_parts(model, data.batch, ("forget", "retain"), ("forget", "retain"), {})
        return DEFAULT(ForgetInputs(read["forget"].predictions), RetainInputs(read["retain"].predictions)).total

    return loss


def lines(results: dict[str, Any]) -> list[str]:
    """The figures, with what they were measured on."""
    setting, methods = results["setting"], results["methods"]
    peak = methods[PEER]["peak_bytes"]
    rows = [
        [
            name,
            f"{figures['seconds']:.2f}",
            measuring.ratio_cell(figures),
            measuring.megabytes(figures["peak_bytes"]) if peak is not None else "-",
            f"{figures['peak_bytes'] / peak:.2f}" if peak is not None else "-",
        ]
        for name, figures in methods.items()
    ]
    return [
        *measuring.heading(results),
        f"{setting['shape']}, {setting['layers']} layers, {setting['parameters']:,} parameters; "
        f"{setting['batch_size']} pairs a step, rank {setting['rank']}",
        *measuring.table(["step", "seconds", "ratio to peer", "peak memory", "peak / peer"], rows),
    ]


if __name__ == "__main__":
    measuring.run(main)
