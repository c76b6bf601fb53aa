"""How strongly an adapter acts: 0 is the target, 1 what was trained, and what lies between is a straight line."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from peft import PeftModel
from scipy.optimize import brentq

from unlora.adapters.anchored import ADAPTER_NAME, factor_parameters, lora_layers
from unlora.adapters.expert_factors import expert_layers

STEP = 0.01
"""Strengths closer than this are one: the probability they give differs by less than its interval, by far."""


@contextmanager
def at_strength(model: PeftModel, strength: float) -> Iterator[None]:
    """Multiply the adapter's update by `strength` for a while; its tensors are not touched.

    Args:
        model: with an adapter that was trained here. An anchored one moves W by strength * s (B A - B0 A0).
        strength: 0 gives the target.
    """
    layers = [layer for _, layer in (*lora_layers(model), *expert_layers(model))]
    try:
        for layer in layers:
            layer.set_scale(ADAPTER_NAME, strength)
        yield
    finally:
        for layer in layers:
            layer.set_scale(ADAPTER_NAME, 1.0)


@torch.no_grad()
def set_strength(model: PeftModel, strength: float) -> None:
    """Multiply B by `strength` for good: both halves of an anchored adapter, so that the anchor goes on cancelling."""
    for _, layer in (*lora_layers(model), *expert_layers(model)):
        factor_parameters(layer)[1].mul_(strength)


def find_strength(probability: Callable[[float], float], level: float, *, most: float) -> float:
    """Find the strength at which the forget probability is `level`, between the target and `most` (Brent 1973).

    Args:
        probability: of the forget set, as a function of the strength; called about five times, never twice with the
            same strength.
        level: in (0, 1).
        most: the largest strength to try.

    Returns:
        A strength within `STEP`. 0 where the target itself is at the level or below it; `most` where even that
        falls short.
    """

    @cache  # brentq asks both ends again
    def above(strength: float) -> float:
        return math.log(max(probability(strength), 1e-30) / level)

    if above(0.0) <= 0:
        return 0.0
    # Training that stops at its level is just past it: the root is near 1, and what lies beyond need not be asked.
    low, high = (0.0, 1.0) if above(1.0) <= 0 else (1.0, most)
    if above(high) > 0:
        return most
    return float(brentq(above, low, high, xtol=STEP))  # pyright: ignore[reportArgumentType]  its stub has all outputs
