"""PEFT at work on layers that it may not change: on copies, or on the model with everything put back."""

import importlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import peft
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import PreTrainedModel

from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.adapters.initial import FactorRequest, InitialFactors
from unlora.errors import InputError
from unlora.importance.hooks import LEAVE_OUT
from unlora.models.dequantise import is_rounded
from unlora.models.quiet import quiet
from unlora.models.target_modules import TargetModule
from unlora.shapes import Weight

Targets = Mapping[str, TargetModule]


def peft_module(kind: str, name: str, version: str) -> Any:
    """Import a module of PEFT that not every supported version has.

    Raises:
        InputError: the installed one has not, or it imports what is not installed (findings/peft-corda-attrs.sh).
    """
    try:
        return importlib.import_module(f"peft.{name}")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and not (error.name or "peft").startswith("peft"):
            raise InputError(
                f"{kind}: PEFT {peft.__version__} needs the module '{error.name}' for it, which is not installed."
            ) from None
        raise InputError(f"{kind}: needs peft {version} or newer (installed: {peft.__version__}; {error}).") from None


@dataclass(frozen=True)
class PeftInitialiser:
    """One of PEFT's initialisers and what it asks for."""

    kind: str
    """PEFT's `init_lora_weights`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options of PEFT's configuration: its sub-configuration."""
    attribute: str | None = None
    """What PEFT's pass over the data leaves on each layer."""

    def config(self, target_modules: list[str], *, rank: int, scaling: float) -> LoraConfig:
        """PEFT's configuration of an adapter that starts so."""
        options: dict[str, Any] = {"init_lora_weights": self.kind, "lora_alpha": scaling * rank, **self.options}
        return LoraConfig(r=rank, target_modules=target_modules, **options)


def factors_of_copies(
    targets: Targets, initialiser: PeftInitialiser, request: FactorRequest
) -> dict[str, InitialFactors]:
    """Let PEFT factorise a float32 copy of every target, one at a time and on the CPU.

    Args:
        targets: canonical name -> linear layer.
        initialiser: its attribute moves from the layer on to the copy.
        request: every copy starts from its seed, so that a layer's factors do not depend on the other layers.
    """
    config = initialiser.config(["layer"], rank=request.rank, scaling=request.scaling)
    factors: dict[str, InitialFactors] = {}
    for name, target in targets.items():
        weight = target.weight().cpu()
        copy = _copy(weight)
        if initialiser.attribute is not None:
            setattr(copy, initialiser.attribute, vars(target.module).pop(initialiser.attribute))
        holder = nn.ModuleDict({"layer": copy})
        with torch.random.fork_rng(devices=[]), quiet():
            torch.default_generator.manual_seed(request.seed)
            inject_adapter_in_model(config, holder)
        ((_, layer),) = lora_layers(holder)
        lora_a, lora_b = (parameter.detach().clone() for parameter in factor_parameters(layer))
        residual = float(torch.linalg.vector_norm(weight - request.scaling * lora_b @ lora_a))
        whole = float(torch.linalg.vector_norm(weight))
        factors[name] = InitialFactors(lora_b, lora_a, residual / whole if whole else 0.0, initialiser.kind, None)
        request.done()
    return factors


def _copy(weight: Weight) -> nn.Linear:
    with torch.device("meta"):
        copy = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    copy.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format), requires_grad=False)
    return copy


@contextmanager
def left_as_found(model: PreTrainedModel, targets: Targets) -> Iterator[None]:
    """Put back, on every way out, what a pass over the data with PEFT's hooks changes about a model.

    That is the mode of every module, `requires_grad` and the gradient of every parameter (none inside), and all
    attributes and hooks of the target layers. The weights are PEFT's to leave alone.
    """
    training = {module: module.training for module in model.modules()}
    trainable = {parameter: (parameter.requires_grad, parameter.grad) for parameter in model.parameters()}
    layers = [target.module for target in targets.values()]
    attributes = [dict(vars(layer)) for layer in layers]
    hooks = [{key: set(value) for key, value in _hooks(layer).items()} for layer in layers]
    for parameter in trainable:
        parameter.grad = None
    try:
        yield
    finally:
        for layer, before, kept in zip(layers, attributes, hooks, strict=True):
            for key in vars(layer).keys() - before.keys():
                del vars(layer)[key]
            vars(layer).update(before)
            for key, registered in _hooks(layer).items():
                for hook in registered.keys() - kept[key]:
                    del registered[hook]
        for module, was in training.items():
            module.training = was
        for parameter, (required, gradient) in trainable.items():
            parameter.requires_grad_(required)
            parameter.grad = gradient


def _hooks(layer: nn.Module) -> dict[str, dict[Any, Any]]:
    return {key: value for key, value in vars(layer).items() if "hooks" in key and isinstance(value, dict)}


@contextmanager
def peft_speaks(kind: str) -> Iterator[None]:
    """Turn what PEFT refuses into an `InputError`; global generators keep their state, and progress stays unseen."""
    try:
        with torch.random.fork_rng(devices=[]), quiet(), warnings.catch_warnings():
            # The first layer's inputs come from a frozen embedding; the hook that counts it fires all the same.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            yield
    except ValueError as error:
        raise InputError(f"{kind}: PEFT's initialiser fails ({' '.join(str(error).split())[:200]}).") from None


def refuse_rounded(kind: str, targets: Targets) -> None:
    """Refuse layers in 4 or 8 bits, whose codes PEFT would take for the weight itself.

    Raises:
        InputError: naming the first.
    """
    for name, target in targets.items():
        if is_rounded(target.module):
            raise InputError(
                f"{kind}: PEFT's initialiser cannot read target module '{name}' in 4 or 8 bits; take another start, or "
                "leave model.quantisation out."
            )


def unused(kind: str, name: str, target: TargetModule) -> InputError:
    """Return the error for a target that PEFT's pass over the data did not reach."""
    if target.transposed:
        return InputError(f"{kind}: peft {peft.__version__} passes over '{name}', a Conv1D; use peft 0.19 or newer.")
    return InputError(f"{kind}: target module '{name}' took no part in the forward pass; {LEAVE_OUT}.")
