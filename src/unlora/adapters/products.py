"""Products of a float32 adapter in the number format of a bfloat16 model, for as long as it is trained.

PEFT multiplies an adapter in the format of its own weights. Those are float32, since an optimiser's small steps need
it; but then the layers' inputs are written out once more in float32 and multiplied several times as slowly as the
model's own. Only layers with a plain adapter are concerned, and of them nothing but their own products: code of a model
that computes something in float32 on purpose, such as a router, goes on doing so.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import nn

from unlora.adapters.anchored import lora_layers
from unlora.adapters.halves import FrozenHalvedA, HalvedA, HalvedB
from unlora.models.wrapping import CausalModel

EXACT = (HalvedA, HalvedB, FrozenHalvedA)
"""B - B0 of an anchored adapter is small beside B0: in bfloat16 much of it would be rounded away."""


@contextmanager
def bfloat16_products(model: CausalModel) -> Iterator[None]:
    """Let plain adapters on bfloat16 layers multiply in bfloat16; their weights and gradients stay float32."""
    with ExitStack() as stack:
        for layer, device in _concerned(model):
            scope = _Scope(device)
            stack.enter_context(disable_input_dtype_casting(layer))
            stack.callback(layer.register_forward_pre_hook(scope.enter).remove)
            stack.callback(layer.register_forward_hook(scope.leave, always_call=True).remove)
        yield


@contextmanager
def casting_anew() -> Iterator[None]:
    """Cast a float32 weight each time that it is read in `torch.autocast`, and keep no cast of before afterwards.

    Whoever has such a block around a training would read the weights of its first step in all others: a block keeps
    the first cast of what asks for a gradient until its end (findings/trainer-around-autocast.sh).
    """
    keeps = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(keeps)
        torch.clear_autocast_cache()


def _concerned(model: CausalModel) -> Iterator[tuple[nn.Module, str]]:
    for _, layer in lora_layers(model):
        weight = getattr(layer.get_base_layer(), "weight", None)
        exact = any(isinstance(factor, EXACT) for factor in (*layer.lora_A.values(), *layer.lora_B.values()))
        if not exact and weight is not None and weight.dtype == torch.bfloat16:
            yield layer, weight.device.type  # pyright: ignore[reportReturnType]  every LoraLayer is a module


class _Scope:
    """Automatic casting for one layer's forward pass, however that ends."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._open: list[torch.autocast] = []

    def enter(self, _module: nn.Module, _inputs: Any) -> None:
        self._open.append(torch.autocast(self._device, torch.bfloat16))
        self._open[-1].__enter__()

    def leave(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        if self._open:
            self._open.pop().__exit__(None, None, None)
