"""Mixtures without values: tokens go to their experts in turn, where a class asks which token goes to which.

How many tokens an expert reads is a value, and a model on the meta device has none. Most classes can multiply every
token's experts at once instead (`batched_mm`); those below go through the experts one by one. In all, the experts read
every token as often as the router sends it, whichever they are: what is kept and computed is the same.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ONE_BY_ONE = {"DbrxExperts": "num_experts", "LongcatFlashExperts": "total_experts", "Step3p7Experts": "num_experts"}
"""Class whose forward takes (states, experts, weights), the last two (token, chosen) -> attribute of its experts."""

SORTING = {"JetMoeTopKGating": "num_experts"}
"""Class of a router, whose forward counts the tokens of each expert -> the same; `top_k` says how many are chosen."""


def route_evenly(model: nn.Module) -> None:
    """Let the mixtures of a model on the meta device read without looking at values; only for counting."""
    module: Any
    for module in model.modules():
        name, forward = type(module).__name__, module.forward
        if name in ONE_BY_ONE:
            module.forward = _in_turn(forward, int(getattr(module, ONE_BY_ONE[name])))
        elif name in SORTING:
            module.forward = _even_counts(forward, int(getattr(module, SORTING[name])), module.top_k)


def _in_turn(forward: Callable[..., Any], experts: int) -> Callable[..., Any]:
    def read(states: Tensor, chosen: Tensor, weights: Tensor) -> Any:
        # On the CPU, where it has values: the code finds each expert's tokens by them.
        turns = torch.arange(chosen.numel()).remainder(experts).reshape(chosen.shape)
        with _Routed([]):
            return forward(states, turns, weights)

    return read


def _even_counts(forward: Callable[..., Any], experts: int, chosen: int) -> Callable[..., Any]:
    def read(states: Tensor) -> Any:
        total = states.shape[0] * chosen
        with _Routed([total // experts + (place < total % experts) for place in range(experts)]):
            return forward(states)

    return read


class _Routed(TorchFunctionMode):
    """What the code of a mixture does with the places of tokens, where these have values and the states have none."""

    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self._counts = counts
        """Tokens of each expert, for code that asks a tensor without values for them."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is Tensor.tolist and args[0].is_meta:
            return self._counts
        if func is Tensor.index_add_:
            target, axis, places, *rest = args
            args = (target, axis, places.to(target.device), *rest)
        return func(*args, **(kwargs or {}))
