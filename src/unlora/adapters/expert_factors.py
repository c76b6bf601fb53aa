"""Adapters of experts: PEFT's `ParamWrapper`, whose two matrices hold the factors of all experts of a tensor.

PEFT keeps A as (expert x rank, d_in), the rows of one expert together, and B as (d_out, rank x expert), the columns of
one rank together; the update of expert e is s B_e A_e. It never calls A and B as layers but reads their weights, so
what stands in for them is a module whose `weight` has the frozen part detached. Saved under the same names, it is an
ordinary PEFT adapter with `target_parameters`.

PEFT takes a tensor for (expert, d_out, d_in) unless its module says `is_transposed`. Llama 4's are (expert, d_in,
d_out) and say nothing: what PEFT calls A and B are there B^T and A^T of the layer y = W x.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from unlora.adapters.initial import InitialFactors
from unlora.models.expert_forms import form_of
from unlora.models.experts import ExpertModule
from unlora.models.wrapping import PEFT_PREFIX, canonical_name


class _Computed(nn.Module):
    """Holds a parameter under the name `weight`, which PEFT saves; what PEFT reads by that name is computed."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self._parameters["weight"] = weight

    def get_parameter(self, target: str) -> nn.Parameter:
        """The parameter itself, which `nn.Module` would look up as an attribute."""
        return self._parameters[target]  # type: ignore[return-value]  never None


class ExpertA(_Computed):
    """A of all experts, (expert x rank, d_in), of which the last `frozen` rows of every expert do not learn."""

    def __init__(self, weight: nn.Parameter, experts: int, frozen: int) -> None:
        super().__init__(weight)
        self._experts, self._frozen = experts, frozen

    @property
    def weight(self) -> Float[Tensor, "expert_rank d_in"]:
        """What PEFT multiplies with."""
        whole = self.get_parameter("weight")
        by_expert = whole.reshape(self._experts, -1, whole.shape[1])
        learns = by_expert.shape[1] - self._frozen
        if learns == 0:
            return whole.detach()
        return torch.cat([by_expert[:, :learns], by_expert[:, learns:].detach()], dim=1).reshape(whole.shape)


class ExpertB(_Computed):
    """B of all experts, (d_out, rank x expert), of which the columns of the last `frozen` ranks do not learn."""

    def __init__(self, weight: nn.Parameter, experts: int, frozen: int) -> None:
        super().__init__(weight)
        self._learns = weight.shape[1] - experts * frozen

    @property
    def weight(self) -> Float[Tensor, "d_out rank_expert"]:
        """What PEFT multiplies with."""
        whole = self.get_parameter("weight")
        return torch.cat([whole[:, : self._learns], whole[:, self._learns :].detach()], dim=1)


def expert_layers(model: nn.Module) -> Iterator[tuple[str, ParamWrapper]]:
    """Yield (canonical name of the tensor, PEFT's wrapper of it), in model order."""
    for name, module in model.named_modules():
        if isinstance(module, ParamWrapper):
            holder = canonical_name(name.removeprefix(PEFT_PREFIX))
            yield f"{holder}.{module.parameter_name}", module


@torch.no_grad()
def set_factors(
    wrapper: ParamWrapper, adapter: str, factors: Mapping[int, InitialFactors], *, anchored: bool, freeze_a: bool
) -> None:
    """Start every expert at its B0, A0; those without factors get zeros, with which they neither change nor learn.

    Args:
        wrapper: of the tensor.
        adapter: PEFT's name of the adapter.
        factors: expert -> factors of the trainable half.
        anchored: the adapter has twice their rank: [A0; A0] and [B0, -B0].
        freeze_a: A does not learn.
    """
    whole_a, whole_b = (getattr(wrapper, part)[adapter].get_parameter("weight") for part in ("lora_A", "lora_B"))
    count, rank = int(wrapper.num_experts), int(wrapper.r[adapter])
    by_a = whole_a.new_zeros(count, rank, whole_a.shape[1])
    by_b = whole_b.new_zeros(count, whole_b.shape[0], rank)
    turned = turned_round(wrapper)
    for index, start in factors.items():
        lora_a, lora_b = (start.lora_b.T, start.lora_a.T) if turned else (start.lora_a, start.lora_b)
        by_a[index] = torch.cat([lora_a] * (2 if anchored else 1))
        by_b[index] = torch.cat([lora_b, -lora_b], dim=1) if anchored else lora_b
    whole_a.copy_(by_a.reshape(whole_a.shape))
    whole_b.copy_(by_b.permute(1, 2, 0).reshape(whole_b.shape))
    freeze(wrapper, adapter, anchored=anchored, freeze_a=freeze_a)


def turned_round(wrapper: ParamWrapper) -> bool:
    """Whether PEFT's A and B are B^T and A^T of the layers y = W x that the tensor holds."""
    form, owner = form_of(wrapper.get_base_layer()), wrapper.get_base_layer()
    return form is not None and wrapper.parameter_name in form.transposed and not getattr(owner, "is_transposed", False)


def freeze(wrapper: ParamWrapper, adapter: str, *, anchored: bool, freeze_a: bool) -> None:
    """Let what is not meant to learn stand still."""
    count, rank = int(wrapper.num_experts), int(wrapper.r[adapter])
    half = rank // 2 if anchored else 0
    frozen_a, frozen_b = rank if freeze_a else half, half
    if turned_round(wrapper):
        frozen_a, frozen_b = frozen_b, frozen_a
    if frozen_a:
        wrapper.lora_A[adapter] = ExpertA(wrapper.lora_A[adapter].get_parameter("weight"), count, frozen_a)
    if frozen_b:
        wrapper.lora_B[adapter] = ExpertB(wrapper.lora_B[adapter].get_parameter("weight"), count, frozen_b)


@torch.no_grad()
def start_plain(wrapper: ParamWrapper, adapter: str) -> None:
    """Let the side be zero that is B of the layers: PEFT has set its own, which is A^T where they are turned round."""
    if turned_round(wrapper):
        whole_a, whole_b = (getattr(wrapper, part)[adapter].get_parameter("weight") for part in ("lora_A", "lora_B"))
        bound = len(whole_b) ** -0.5  # PEFT's own, of d_in
        whole_b.uniform_(-bound, bound)
        whole_a.zero_()


@torch.no_grad()
def silence(wrapper: ParamWrapper, adapter: str, kept: Sequence[int]) -> None:
    """Set the factors of all experts but these to zero."""
    count = int(wrapper.num_experts)
    others = [index for index in range(count) if index not in set(kept)]
    if not others:
        return
    whole_a, whole_b = (getattr(wrapper, part)[adapter].get_parameter("weight") for part in ("lora_A", "lora_B"))
    whole_a.view(count, -1, whole_a.shape[1])[others] = 0
    whole_b.view(whole_b.shape[0], -1, count)[:, :, others] = 0


def by_tensor(factors: Mapping[str, Any], experts: Mapping[str, ExpertModule]) -> dict[str, dict[int, Any]]:
    """Sort what is kept by expert into what is kept by tensor: tensor -> expert -> value."""
    found: dict[str, dict[int, Any]] = {}
    for name, value in factors.items():
        if name in experts:
            found.setdefault(experts[name].parameter, {})[experts[name].index] = value
    return found
