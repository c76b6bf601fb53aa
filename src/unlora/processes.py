"""Several processes at one run, as `accelerate launch` or torchrun start them. In one process all of this does nothing.

Every process runs the same recipe. They share the work of measuring, training and evaluating; the first one, "main",
writes and speaks. What is summed or gathered here must be reached by all of them, in the same order.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, overload

import torch
from accelerate import DistributedType, PartialState
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

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
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        os.environ.pop(ASKS["zero3"], None)  # else the Trainer gives one process to DeepSpeed as well
        return
    if _joined():
        return
    if device.index is not None:
        raise InputError(
            f"device '{device}': several processes cannot share it; use {device.type}, each takes its own."
        )
    _refuse_other_engines()
    state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    if state.distributed_type == DistributedType.MULTI_CPU and _engine_asked() == "fsdp2":
        # accelerate makes FSDP of this kind alone; torch's own runs over gloo just as well, and our tests run it there.
        state.distributed_type = DistributedType.MULTI_GPU


ASKS = {"fsdp2": "ACCELERATE_USE_FSDP", "zero3": "ACCELERATE_USE_DEEPSPEED"}
"""Engine that trains on pieces of each weight -> the variable by which accelerate's launcher asks for it."""


class EngineSetting(NamedTuple):
    """What a launch configuration must say."""

    key: str
    value: str
    unsaid: str
    """What accelerate takes it to say where it says nothing."""


ENGINE_SETTINGS = {
    "fsdp2": {
        "FSDP_VERSION": EngineSetting("fsdp_version", "2", "1"),
        "FSDP_STATE_DICT_TYPE": EngineSetting("fsdp_state_dict_type", "full_state_dict", "sharded_state_dict"),
        "FSDP_CPU_RAM_EFFICIENT_LOADING": EngineSetting("fsdp_cpu_ram_efficient_loading", "false", "false"),
    },
    "zero3": {
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": EngineSetting("deepspeed_config_file", "none", "none"),
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": EngineSetting("zero_stage", "3", "2"),
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": EngineSetting("zero3_save_16bit_model", "true", "false"),
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": EngineSetting("offload_optimizer_device", "none", "none"),
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": EngineSetting("offload_param_device", "none", "none"),
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": EngineSetting("gradient_accumulation_steps", "auto", "auto"),
        "ACCELERATE_GRADIENT_CLIPPING": EngineSetting("gradient_clipping", "auto", "auto"),
        "ACCELERATE_MIXED_PRECISION": EngineSetting("mixed_precision", "no", "no"),
    },
}
"""Engine -> variable of accelerate's launcher -> what it must be.

FSDP version 1 flattens frozen and trained weights together; a sharded state leaves checkpoints without an adapter, as
does ZeRO-3 without `zero3_save_16bit_model`; efficient loading leaves all processes but one without the weights that
importance is measured on. Accumulation, clipping and formats are the settings' of the run; DeepSpeed's own files, its
other stages and offloading have not been tried.
"""


def _refuse_other_engines() -> None:
    engine = _engine_asked()
    for variable, need in ENGINE_SETTINGS[engine].items() if engine is not None else ():
        found = os.environ.get(variable, need.unsaid).lower()
        if found != need.value:
            raise InputError(
                f"launch configuration: {need.key} is {found} and must be {need.value}; see {engine}.yaml of unlora."
            )


def _engine_asked() -> str | None:
    return next((engine for engine, asks in ASKS.items() if os.environ.get(asks, "").lower() == "true"), None)


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


def sharding() -> str | None:
    """Name the engine that will train on pieces of each weight, fsdp2 or zero3; None if every process has them all."""
    return _engine_asked() if count() > 1 else None


def stop_sharding() -> None:
    """Load models whole from now on; without it transformers cuts all that is loaded once ZeRO-3 has begun."""
    unset_hf_deepspeed_config()


def is_sharded(model: nn.Module) -> bool:
    """Whether every process holds only a piece of each weight."""
    return any(isinstance(parameter, DTensor) or _is_zero(parameter) for parameter in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """Put a sharded tensor together in every process; others are returned as they are.

    Args:
        tensor: as the model holds it; detached from its parameter, what ZeRO-3 has cut cannot be told from any other.
    """
    if _is_zero(tensor):
        with importlib.import_module("deepspeed").zero.GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _is_zero(tensor: Tensor) -> bool:
    return hasattr(tensor, "ds_id")  # as transformers and PEFT ask; the class of the parameter stays that of any other


def local(tensor: Tensor) -> Tensor:
    """Return the piece of a sharded tensor that is here; others are returned as they are."""
    if _is_zero(tensor):
        return tensor.ds_tensor  # pyright: ignore[reportAttributeAccessIssue]  DeepSpeed's own
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()
