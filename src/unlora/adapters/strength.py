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
"""Strengths closer than this are one."""
AT_LEVEL = 0.02
"""A probability so near to the level, as a share of it, is at it: its interval over the questions is far wider."""


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
    torch.clear_autocast_cache()  # An earlier cast of B must not be read for it.


def find_strength(probability: Callable[[float], float], level: float, *, most: float) -> float:
    """Find the strength at which the forget probability is `level`, between the target and `most` (Brent 1973).

    Args:
        probability: of the forget set, as a function of the strength; called two to four times where training
            passed the level, never twice with the same strength.
        level: in (0, 1).
        most: the largest strength to try.

    Returns:
        A strength within `STEP`, or one that gives the level within `AT_LEVEL`; `probability` was asked about it. 0
        where the target itself is at the level or below it; `most` where even that falls short.
    """

    @cache  # brentq asks both ends again
    def above(strength: float) -> float:
        ratio = max(probability(strength), 1e-30) / level
        return math.log(ratio) if abs(ratio - 1) > AT_LEVEL else 0.0

    # Training that stops at its level is at it or just past it: what lies beyond 1 need not be asked then.
    if above(1.0) == 0:
        return 1.0
    if above(1.0) > 0:
        if above(most) > 0:
            return most if above(0.0) > 0 else 0.0
        return _crossing(above, 1.0, most)
    # The target is not asked either, but taken to be certain of its answers: the straight line from there to what was
    # trained is asked first, and most often is near enough. Where the target is below the level, all that is asked is.
    found = _crossing(lambda strength: above(strength) if strength > 0 else -math.log(level), 0.0, 1.0)
    return found if found > STEP else 0.0


def _crossing(above: Callable[[float], float], low: float, high: float) -> float:
    return float(brentq(above, low, high, xtol=STEP))  # pyright: ignore[reportArgumentType]  its stub has all outputs
