"""The attacker's own LoRA adapter: put on whatever is deployed, trained, and taken off without a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from unlora.adapters.anchored import ADAPTER_NAME
from unlora.models.choose import choose_target_modules
from unlora.models.quiet import quiet
from unlora.models.target_modules import peft_target_modules
from unlora.models.wrapping import CausalModel

ATTACKER = "attacker"


@contextmanager
def attacked(model: CausalModel, *, rank: int, seed: int) -> Iterator[PeftModel]:
    """Yield the model with a fresh trainable adapter (B = 0) on every linear layer that can have one, and take it off.

    An unlearned model keeps its unlearning adapter, switched on and frozen, under the attacker's, so nothing is merged
    and nothing copied. The same seed gives the control the same adapter, so that the two attacks are one.
    """
    names = peft_target_modules(model, list(choose_target_modules(model, rank=rank, by_example=False).targets))
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names, task_type="CAUSAL_LM")
    if isinstance(model, PeftModel):
        with quiet(), _seeded(model.device, seed):
            model.add_adapter(ATTACKER, config)
        try:
            model.base_model.set_adapter([ADAPTER_NAME, ATTACKER])  # pyright: ignore[reportCallIssue]  a LoraModel
            _train_only_the_attacker(model)
            yield model
        finally:
            model.delete_adapter(ATTACKER)
            model.set_adapter(ADAPTER_NAME, inference_mode=True)
        return
    with quiet(), _seeded(model.device, seed):
        wrapped = get_peft_model(model, config, adapter_name=ATTACKER)  # pyright: ignore[reportArgumentType]
    try:
        yield wrapped  # pyright: ignore[reportReturnType]
    finally:
        wrapped.unload()  # pyright: ignore[reportCallIssue]
        model.requires_grad_(False)
        vars(model).pop("peft_config", None)  # some versions of PEFT leave it behind


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """PEFT draws LoRA's A from the global generator, which is given back as it was."""
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        torch.manual_seed(seed)
        yield


def _train_only_the_attacker(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{ATTACKER}." in name)
