"""Erasing in a fine-tuning delta: a closed form on the factor A of every layer, and healing on both factors.

A target that is an adapter on a known base computes W_0 x + s B A x, and all that it learnt in fine-tuning lies in B A.
What is taken out there leaves the base's own answer, and no inhibitor beside the memory (ours; after UNDO, arXiv
2506.06278, with the base in place of noise, and AI Engram, arXiv 2606.14997, with the delta in place of the weight).
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor

from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.adapters.products import bfloat16_products
from unlora.data.collate import collate
from unlora.data.forget_retain import ShuffledEpochs
from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError
from unlora.starts.reading import add_input_moments
from unlora.training import FineTuneTrainer, training_arguments

DAMPING = 1e-3
"""e, in units of the mean eigenvalue of S_f + l S_r."""

SecondMoment = Float[Tensor, "d d"]


class Dial(NamedTuple):
    """How far to turn: from nothing (all 0) to retraining (a = 1)."""

    k: float
    """Share of what the closed form takes out, in [0, 1]."""
    l: float  # noqa: E741  the formula's own letter
    """Weight of the retain inputs in it: the smaller, the more is taken; > 0."""
    a: float
    """Share of the whole delta that is dropped besides, in [0, 1]. At 1 nothing of it is left, and what follows is
    `unlora finetune --exclude` on the base; k, l and the steps say nothing then."""
    steps: int
    """Of healing, on retain examples alone."""

    def checked(self) -> "Dial":
        """Itself.

        Raises:
            InputError: a number out of its range.
        """
        if not (0 <= self.k <= 1 and self.l > 0 and 0 <= self.a <= 1 and self.steps >= 0):
            raise InputError(f"dial: k and a lie in [0, 1], l is above 0, steps at least 0; found {tuple(self)}.")
        return self


@torch.no_grad()
def input_moments(
    model: PeftModel, examples: Sequence[TokenisedExample], *, pad_token_id: int, batch_size: int = 8
) -> dict[str, SecondMoment]:
    """Mean over examples of the sum of x x^T over an example's tokens, x what a layer with an adapter reads.

    Args:
        model: the target, its adapter on.
        examples: prompt and answer, all of their tokens.
        pad_token_id: fills short rows, which are left out.
        batch_size: examples per forward pass.

    Returns:
        Canonical name -> (d_in, d_in), float32; zeros without examples.
    """
    layers: dict[str, Any] = dict(lora_layers(model))
    widths = {name: factor_parameters(layer)[0].shape[1] for name, layer in layers.items()}
    moments = {name: torch.zeros(width, width) for name, width in widths.items()}
    starts = range(0, len(examples), batch_size)
    batches = (collate(examples[start : start + batch_size], pad_token_id) for start in starts)
    add_input_moments(model, layers, moments, batches)
    return {name: moment / max(len(examples), 1) for name, moment in moments.items()}


def erased_a(
    lora_a: Float[Tensor, "rank d"], forget: SecondMoment, retain: SecondMoment, dial: Dial
) -> Float[Tensor, "rank d"]:
    """(1 - a) A (I - k Pi) with Pi = S_f (S_f + l S_r + e I)^-1.

    A (I - Pi) is the least-squares solution of A' x = 0 on forget inputs, of A' x = A x on retain inputs, weighted by
    l, and of A' = A, weighted by e = `DAMPING` x the mean eigenvalue of S_f + l S_r. It is the ridge form
    A S_r (S_r + m S_f)^-1 with m = 1 / l where e is nought. Pi is a projection where the two sets' inputs are at right
    angles and e is nought; otherwise its eigenvalues lie between 0 and 1.

    Args:
        lora_a: A.
        forget: S_f, symmetric, not negative; where it is zero nothing is taken out.
        retain: S_r.
        dial: k, l and a.

    Returns:
        In A's number format, computed in float64; A's own bits where k and a are 0.
    """
    if dial.k == 0 or not forget.any():
        return (1 - dial.a) * lora_a
    both = forget.double() + dial.l * retain.double()
    both.diagonal().add_(DAMPING * both.trace() / len(both))
    wide = lora_a.double()
    taken = torch.cholesky_solve((wide @ forget.double()).T, torch.linalg.cholesky(both)).T
    return ((1 - dial.a) * (wide - dial.k * taken)).to(lora_a.dtype)


@torch.no_grad()
def erase(model: PeftModel, forget: dict[str, SecondMoment], retain: dict[str, SecondMoment], dial: Dial) -> None:
    """Give every A of the adapter what `erased_a` leaves of it; B stays."""
    for name, layer in lora_layers(model):
        lora_a = factor_parameters(layer)[0]
        lora_a.copy_(erased_a(lora_a, forget[name], retain[name], dial))


def heal(
    model: PeftModel, examples: Sequence[TokenisedExample], dial: Dial, *, rate: float, pad_token_id: int, seed: int
) -> None:
    """Train both factors of the delta on the NLL of retain examples, 16 a step, along a cosine; nothing at 0 steps."""
    if not dial.steps:
        return
    size = min(16, len(examples))
    for _, layer in lora_layers(model):
        for factor in factor_parameters(layer):
            factor.requires_grad_(True)
    with tempfile.TemporaryDirectory(prefix="unlora-") as folder, bfloat16_products(model):
        arguments = training_arguments(
            Path(folder),
            learning_rate=rate,
            batch_size=size,
            gradient_accumulation_steps=1,
            warmup_steps=dial.steps // 10,
            max_grad_norm=1.0,
            gradient_checkpointing=False,
            save_steps=None,
            seed=seed,
            use_cpu=model.device.type == "cpu",
            lr_scheduler_type="cosine",
            max_steps=dial.steps,
        )
        epochs = -(-dial.steps * size // len(examples))
        stream = ShuffledEpochs(examples, epochs=epochs, seed=seed)
        FineTuneTrainer(model, arguments, train_dataset=stream, pad_token_id=pad_token_id).train()
    model.requires_grad_(False).eval()
