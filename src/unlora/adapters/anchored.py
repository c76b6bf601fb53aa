"""The anchored adapter: LoRA that starts at B0, A0 without changing the model, and never writes the base weights.

One plain LoRA adapter of rank 2r holds A = [A0; A0] and B = [B0, -B0]. Its product s (B0 A0 - B0 A0) is zero, so the
model is the target's at step 0; the second half is frozen (`halves`), so training moves only the first. A frozen half
needs an optimiser that leaves entries without gradient alone: AdamW does when the adapter has no weight decay.

FILA and VILA instead subtract the product from the base weights, which leaves an adapter that is meaningless without a
second full model.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from unlora.adapters.expert_factors import by_tensor, expert_layers, freeze, set_factors, silence, start_plain
from unlora.adapters.halves import FrozenA, FrozenHalvedA, HalvedA, HalvedB, stand_in
from unlora.adapters.initial import InitialFactors, refuse_rank
from unlora.errors import FunctionMovedError, InputError
from unlora.models.experts import ExpertModule, find_experts, peft_target_parameters
from unlora.models.forward import completion_logits
from unlora.models.quiet import quiet
from unlora.models.target_modules import TargetModule, find_target_modules, peft_target_modules
from unlora.models.wrapping import PEFT_PREFIX, CausalModel

ADAPTER_NAME = "default"

STEP_0_TOLERANCE = 1e-4
"""Largest change of a float32 logit at step 0 that counts as rounding."""


def attach_factors(
    model: CausalModel,
    factors: Mapping[str, InitialFactors],
    *,
    rank: int,
    alpha: int | float,
    freeze_a: bool = False,
) -> PeftModel:
    """Wrap `model` in a LoRA adapter of rank 2r that starts at `factors` and whose output is the target's at step 0.

    Where every B0 is zero there is nothing to anchor: the adapter is then an ordinary one of rank r.

    Args:
        model: the target model; its weights are not written.
        factors: canonical name -> start, of every layer that gets an adapter.
        rank: r, the trainable half.
        alpha: the scaling is alpha / rank; it doubles with the rank in the saved adapter.
        freeze_a: train B alone, so that every change of W is felt by inputs in the span of A0 only.

    Returns:
        A `PeftModel`; what it saves is an ordinary LoRA adapter.

    Raises:
        InputError: the model has an adapter already, or PEFT refuses a layer.
    """
    refuse_adapter(model)
    anchored = needs_anchor(factors)
    halves = 2 if anchored else 1
    experts = experts_among(model, factors)
    peft_model = _attach(model, list(factors), experts, rank=halves * rank, alpha=halves * alpha)
    starts = by_tensor(factors, experts)
    for tensor, wrapper in expert_layers(peft_model):
        set_factors(wrapper, ADAPTER_NAME, starts[tensor], anchored=anchored, freeze_a=freeze_a)
    for name, layer in lora_layers(peft_model):
        start = factors[name]
        with torch.no_grad():
            lora_a, lora_b = factor_parameters(layer)
            lora_a.copy_(torch.cat([start.lora_a] * halves))
            lora_b.copy_(torch.cat([start.lora_b, -start.lora_b], dim=1) if anchored else start.lora_b)
        if anchored:
            layer.lora_B[ADAPTER_NAME] = stand_in(layer.lora_B[ADAPTER_NAME], HalvedB)
        if anchored or freeze_a:
            kind = FrozenA if not anchored else FrozenHalvedA if freeze_a else HalvedA
            layer.lora_A[ADAPTER_NAME] = stand_in(layer.lora_A[ADAPTER_NAME], kind)
    return peft_model


def needs_anchor(factors: Mapping[str, InitialFactors]) -> bool:
    """Whether some product B0 A0 is not zero and must be cancelled."""
    return any(bool(start.lora_b.any()) for start in factors.values())


def attach_plain_adapter(
    model: CausalModel,
    targets: Mapping[str, TargetModule],
    *,
    rank: int,
    alpha: int | float,
    freeze_a: bool = False,
    halves: int = 1,
) -> PeftModel:
    """Wrap `model` in ordinary LoRA (B = 0), the control; the output is the target's at step 0 as well.

    With `freeze_a`, B alone is trained. With two `halves` it is as large as an anchored one of that rank.

    Raises:
        InputError: the model has an adapter already, or the rank does not fit a layer.
    """
    refuse_adapter(model)
    for target in targets.values():
        refuse_rank(rank, target)
    experts = experts_among(model, targets)
    peft_model = _attach(model, list(targets), experts, rank=halves * rank, alpha=halves * alpha)
    kept = by_tensor(targets, experts)
    for tensor, wrapper in expert_layers(peft_model):
        start_plain(wrapper, ADAPTER_NAME)
        silence(wrapper, ADAPTER_NAME, list(kept[tensor]))
        freeze(wrapper, ADAPTER_NAME, anchored=False, freeze_a=freeze_a)
    for _, layer in lora_layers(peft_model) if freeze_a else ():
        layer.lora_A[ADAPTER_NAME] = stand_in(layer.lora_A[ADAPTER_NAME], FrozenA)
    return peft_model


def refuse_adapter(model: nn.Module) -> None:
    """Refuse a model that carries an adapter, even one whose wrapper was taken off: its output is not the target's.

    Raises:
        InputError: it does.
    """
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise InputError("the model already carries an adapter; merge it first (merge_and_unload).")


def _attach(
    model: CausalModel, names: Collection[str], experts: Mapping[str, ExpertModule], *, rank: int, alpha: int | float
) -> PeftModel:
    layers = [name for name in names if name not in experts]
    tensors = {expert.parameter for expert in experts.values()}
    config = LoraConfig(
        r=rank,
        # Some loaders insist on an int; PEFT itself takes both.
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=0.0,
        target_modules=peft_target_modules(model, layers),
        target_parameters=peft_target_parameters(model, tensors) or None,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(target.transposed for target in find_target_modules(model, layers).values())
        if layers
        else False,
    )
    try:
        with quiet():
            peft_model = get_peft_model(model, config)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        raise InputError(f"adapter: PEFT refuses it ({' '.join(str(error).split())[:200]}).") from None
    if not isinstance(peft_model, PeftModel):
        raise TypeError(f"PEFT returned {type(peft_model).__name__}")
    refuse_other_layers(peft_model, {*layers, *tensors})
    return peft_model


def experts_among(model: CausalModel, names: Collection[str]) -> dict[str, ExpertModule]:
    """Those of the targets that are experts."""
    return {name: expert for name, expert in find_experts(model).items() if name in names}


def refuse_other_layers(model: PeftModel, names: Collection[str]) -> None:
    """Refuse an adapter that is not on the layers and tensors `names` exactly: PEFT does not always do as it is told.

    Raises:
        InputError: naming one that is missing or was not asked for.
    """
    adapted = {name for name, _ in lora_layers(model)} | {name for name, _ in expert_layers(model)}
    for name in [*sorted(names), *sorted(adapted)]:
        if (name in adapted) != (name in names):
            fault = "no adapter" if name not in adapted else "an adapter that was not asked for"
            raise InputError(f"adapter: PEFT gave '{name}' {fault}; leave it out with adapter.exclude_modules.")


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Yield (canonical module name, LoRA layer), in model order."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and not isinstance(module, ParamWrapper):
            yield name.removeprefix(PEFT_PREFIX), module


def factor_parameters(layer: LoraLayer) -> tuple[nn.Parameter, nn.Parameter]:
    """A (rank, d_in) and B (d_out, rank) of a LoRA layer."""
    return layer.lora_A[ADAPTER_NAME].get_parameter("weight"), layer.lora_B[ADAPTER_NAME].get_parameter("weight")


class OutputShift(NamedTuple):
    """How far the adapter moved the logits before training, and what would still be rounding."""

    largest_difference: float
    tolerance: float
    logit_count: int


@torch.no_grad()
def check_output_unmoved(model: PeftModel, batch: Mapping[str, Tensor]) -> OutputShift:
    """Compare the logits with the adapter on and off.

    In float32 the tolerance is 1e-4. In a lower precision it is what two evaluations of the target in different
    batch shapes differ by, measured here. The batch may lie on another device than the model.

    Raises:
        InputError: the target itself computes nothing.
        FunctionMovedError: the difference is larger than rounding explains.
    """
    was_training = model.training
    model.eval()
    batch = {key: value.to(model.device) for key, value in batch.items()}
    adapted = completion_logits(model, batch).float()
    with model.disable_adapter():
        target = completion_logits(model, batch).float()
        tolerance = STEP_0_TOLERANCE
        if next(model.get_base_model().parameters()).dtype != torch.float32:
            tolerance = max(tolerance, _batch_shape_noise(model, batch, target))
    model.train(was_training)
    scored = batch["attention_mask"][:, -target.shape[1] :].bool()
    if not bool(target[scored].isfinite().all()):
        raise InputError(
            "the target model's own logits are not finite; look for weights that are not, or take --dtype float32."
        )
    difference = float((adapted - target)[scored].abs().max())
    if not difference <= tolerance:
        raise FunctionMovedError(
            f"the adapter moved a logit by {difference:.2e} before any training step (allowed {tolerance:.0e}); "
            "the anchor does not cancel. Use float32 (--dtype float32) or a smaller adapter.alpha; in an adapter of "
            "your own, lora_dropout 0 and neither DoRA nor rsLoRA."
        )
    return OutputShift(difference, tolerance, int(scored.sum()) * target.shape[-1])


def _batch_shape_noise(model: PeftModel, batch: Mapping[str, Tensor], together: Tensor) -> float:
    noise = 0.0
    for row in range(together.shape[0]):
        alone = completion_logits(model, {key: value[row : row + 1] for key, value in batch.items()}).float()
        common = min(alone.shape[1], together.shape[1])
        scored = batch["attention_mask"][row, -common:].bool()
        noise = max(noise, float((alone[0, -common:] - together[row, -common:])[scored].abs().max()))
    return noise
