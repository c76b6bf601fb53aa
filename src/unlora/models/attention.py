"""Which attention is fastest where: short sequences in bfloat16 on a processor are trained with the plain formula."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unlora.models.wrapping import CausalModel, unwrap

SHORT = 128
"""Tokens up to which the plain formula is faster on a CPU: at 64, forward and backward take a quarter of the fused
kernel's time in bfloat16 (its backward pass takes twice as long as in float32), at 256 a fifth more (torch 2.13)."""


@contextmanager
def fastest_attention(model: CausalModel, *, longest: int) -> Iterator[None]:
    """Train with `eager` attention where it is faster than `sdpa`; the same numbers but for rounding.

    Args:
        model: whose attention is switched, and switched back.
        longest: tokens of the longest sequence that it will read.
    """
    plain = unwrap(model)
    before = plain.config._attn_implementation
    if before != "sdpa" or plain.device.type != "cpu" or plain.dtype != torch.bfloat16 or longest > SHORT:
        yield
        return
    plain.set_attn_implementation("eager")
    try:
        yield
    finally:
        plain.set_attn_implementation(before)
