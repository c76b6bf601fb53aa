"""Several processes at one run, as `accelerate launch` or torchrun start them. In one process all of this does nothing.

Every process runs the same recipe. They share the work of measuring, training and evaluating; the first one, "main",
writes and speaks. What is summed or gathered here must be reached by all of them, in the same order.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, overload

import torch
from accelerate import DistributedType, PartialState
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from unlora.errors import InputError

Value = TypeVar("Value")

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others. One that dies ends them all at once; this is for those that are slow."""


def join(device: torch.device) -> None:
    """Meet the other processes, if this one was started as one of several: over gloo on a CPU, else as accelerate does.

    Raises:
        InputError: one device is named for all of them, or the launcher was asked for an engine that would give other
            results than one process: better none than those.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _joined():
        return
    if device.index is not None:
        raise InputError(
            f"device '{device}': several processes cannot share it; use {device.type}, each takes its own."
        )
    _refuse_other_engines()
    state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    if state.distributed_type == DistributedType.MULTI_CPU and _fsdp_asked():
        # accelerate makes FSDP of this kind alone; torch's own runs over gloo just as well, and our tests run it there.
        state.distributed_type = DistributedType.MULTI_GPU


FSDP_NEEDS = {
    "FSDP_VERSION": ("2", "fsdp_version"),
    "FSDP_STATE_DICT_TYPE": ("full_state_dict", "fsdp_state_dict_type"),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": ("false", "fsdp_cpu_ram_efficient_loading"),
}
"""Variable of accelerate's launcher -> what it must be, and its key in a launch configuration.

Version 1 flattens frozen and trained weights together; a sharded state leaves checkpoints without an adapter; efficient
loading leaves all processes but one without the weights that importance is measured on.
"""


def _refuse_other_engines() -> None:
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise InputError("DeepSpeed: has not been tried with unlora; use --accelerate-config ddp or fsdp2.")
    for variable, (needed, key) in FSDP_NEEDS.items() if _fsdp_asked() else ():
        found = os.environ.get(variable, needed).lower()
        if found != needed:
            raise InputError(f"launch configuration: {key} is {found} and must be {needed}; see fsdp2.yaml of unlora.")


def _fsdp_asked() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if _joined() else 1


def index() -> int:
    """Which one this is, from 0."""
    return distributed.get_rank() if _joined() else 0


def is_main() -> bool:
    """Whether this is the one that writes and speaks."""
    return index() == 0


def wait() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        PartialState().wait_for_everyone()


@overload
def total(tensor: Tensor) -> Tensor: ...


@overload
def total(tensor: Tensor | None) -> Tensor | None: ...


def total(tensor: Tensor | None) -> Tensor | None:
    """Sum a tensor over all processes, where it lies; one that comes with None adds zeros.

    Returns:
        The same bits in every process; None where no process has a tensor.
    """
    if count() == 1:
        return tensor
    known = [shape for shape in from_all(None if tensor is None else tensor.shape) if shape is not None]
    if not known:
        return None
    device = PartialState().device
    summed = torch.zeros(known[0], device=device) if tensor is None else tensor.to(device, copy=True)
    distributed.all_reduce(summed)
    return summed if tensor is None else summed.to(tensor.device)


def mean(tensor: Tensor) -> Tensor:
    """Average a tensor that all processes have in the same shape and on their own device."""
    if count() == 1:
        return tensor
    summed = tensor.detach().clone()
    distributed.all_reduce(summed)
    return summed / count()


def from_all(value: Value) -> list[Value]:
    """Give every process the values of all, in their order."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    distributed.all_gather_object(values, value)
    return values


def from_main(make: Callable[[], Value]) -> Value:
    """Make a value in the main process alone and give it to all."""
    values = [make() if is_main() else None]
    if count() > 1:
        distributed.broadcast_object_list(values, src=0)
    return values[0]  # pyright: ignore[reportReturnType]  only main's is kept, and that one was made


def on_main(work: Callable[[], object]) -> None:
    """Let the main process do something alone, such as writing a file, and wait until it is done."""
    if is_main():
        work()
    wait()


def copy_main(tensor: Tensor) -> None:
    """Overwrite a tensor, on the process's own device, with that of the main process."""
    if count() > 1:
        distributed.broadcast(tensor, src=0)


def share(items: Sequence[Value]) -> Sequence[Value]:
    """What this process takes of a list: every `count()`-th item; `join_shares` puts the results together."""
    return items[index() :: count()]


def join_shares(mine: Sequence[Value]) -> list[Value]:
    """Put together what all processes made of their shares, one result an item, in the order of the whole list."""
    parts = from_all(mine)
    return [parts[place % len(parts)][place // len(parts)] for place in range(sum(map(len, parts)))]


def will_shard() -> bool:
    """Whether the launcher asked for training on pieces of each weight (FSDP2)."""
    return count() > 1 and _fsdp_asked()


def is_sharded(model: nn.Module) -> bool:
    """Whether every process holds only a piece of each weight (FSDP2)."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """Put a sharded tensor together in every process; others are returned as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return the piece of a sharded tensor that is here; others are returned as they are."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()
