"""Which layers get an adapter: those that were asked for and can have one, and what of the model that leaves out."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from unlora.errors import InputError
from unlora.models.bypass import bypassed_layers
from unlora.models.experts import ExpertModule, find_all, routers, whole_tensors
from unlora.models.inventory import text_part, what_is_reached
from unlora.models.layer_use import LayerUse, try_layers
from unlora.models.peft_trial import not_attached, tensors_not_attached
from unlora.models.target_modules import TargetModule, find_target_modules, matches_of, refuse_empty
from unlora.models.wrapping import CausalModel
from unlora.reach import Reach

KNOWN_FORWARDS = ("torch.", "bitsandbytes.", "transformers.pytorch_utils", "transformers.integrations.", "peft.")
"""Where a linear layer's forward may be written without being tried: all of these multiply with the weight."""

BYPASSED = "whose weight a kernel of the model takes past any adapter"
NOT_TEXT = "outside the language model"
UNCALLED = "whose forward is never called"
UNFELT = "that the loss does not depend on"
NOT_LINEAR = "that compute more than a linear layer does"
MIXED = "that do not keep the examples apart"
NOT_HELD = "of experts, which PEFT does not hold"
ROUTER = "that choose the experts"
EXCLUDED = "excluded (adapter.exclude_modules)"
NOT_ASKED = "not among adapter.target_modules"


LITTLE_USED = "of experts that the forget set uses no more than the retain set (adapter.expert_excess)"
BELOW_COVERAGE = "of less importance (adapter.coverage)"


class Choice(NamedTuple):
    """Layers, and what they are of the model."""

    targets: dict[str, TargetModule]
    """Canonical name -> module, in model order."""
    left_out: dict[str, str]
    """Canonical name of every other linear layer -> why it gets no adapter."""
    reach: Reach


def choose_target_modules(
    model: CausalModel,
    patterns: Sequence[str] | None = None,
    *,
    exclude: Sequence[str] = (),
    rank: int = 1,
    by_example: bool = True,
    experts: bool = False,
) -> Choice:
    """Choose the linear layers, and matrices of experts, that get an adapter: by default all that can have it.

    Left out, and named in the reach, are layers narrower than the rank, layers that reading text does not call or does
    not depend on, layers that compute something else than W x, and those around which PEFT's adapter would not be felt.
    Also, unless it is asked for by name, what chooses the experts of a token: a model whose tokens go elsewhere has its
    knowledge where it was, and nothing was forgotten.

    Args:
        model: Plain or with an adapter, also on the meta device.
        patterns: As in `find_target_modules`; None takes all.
        exclude: Patterns of layers to leave out.
        rank: No side of a layer may be smaller.
        by_example: Layers must keep the examples of a batch apart, as is needed to measure them.
        experts: Whether experts that share a tensor are among what is chosen from.

    Returns:
        The layers, and the share of the weights that they are.

    Raises:
        InputError: a pattern matches no linear layer, or only such as cannot have an adapter; or none is left.
    """
    layers = find_all(model) if experts else {**find_target_modules(model)}
    if patterns is not None:
        refuse_empty(patterns)
    named = matches_of(model, layers, patterns, "adapter.target_modules: target module") if patterns is not None else {}
    excluded = set[str]().union(*matches_of(model, layers, exclude, "adapter.exclude_modules: module").values())
    wanted = layers if patterns is None else {name: layers[name] for name in layers if _named(name, named)}
    left_out = dict.fromkeys(layers.keys() - wanted.keys(), NOT_ASKED) | dict.fromkeys(excluded, EXCLUDED)
    wanted = {name: layer for name, layer in wanted.items() if name not in excluded}
    unfit = _unfit(model, wanted, rank=rank, by_example=by_example)
    if patterns is None:
        unfit = dict.fromkeys(routers(model, wanted), ROUTER) | unfit
    targets = {name: layer for name, layer in wanted.items() if name not in unfit}
    unfit |= _not_attached(model, targets)
    targets = {name: layer for name, layer in targets.items() if name not in unfit}
    for pattern, matches in named.items():
        if matches <= unfit.keys():
            name = next(name for name in wanted if name in matches)
            raise InputError(f"adapter.target_modules: '{pattern}' names layers {unfit[name]} ({name}); leave it out.")
    if not targets:
        raise _none_left(wanted, left_out | unfit, rank)
    return Choice(targets, left_out | unfit, what_is_reached(model, targets, left_out | unfit))


def _named(name: str, matches: Mapping[str, set[str]]) -> bool:
    return any(name in found for found in matches.values())


def _not_attached(model: CausalModel, targets: Mapping[str, TargetModule]) -> dict[str, str]:
    """What PEFT does not put an adapter on. Where it will not take the experts as they are, the layers remain."""
    tensors = whole_tensors(targets)
    layers = [name for name, target in targets.items() if not isinstance(target, ExpertModule)]
    unfit = not_attached(model, layers) if layers else {}
    kept = [name for name in layers if name not in unfit]
    if tensors and tensors_not_attached(model, kept, list(tensors)):
        unfit |= {expert.name: NOT_HELD for held in tensors.values() for expert in held}
    return unfit


def targets_of(model: CausalModel, patterns: Sequence[str] | None, *, rank: int) -> dict[str, TargetModule]:
    """Find the layers that were asked for, as they are; by default those that `choose_target_modules` chooses.

    Raises:
        InputError: as there, or as `find_target_modules`.
    """
    if patterns is None:
        return choose_target_modules(model, rank=rank).targets
    known = find_all(model)
    if all(name in known for name in patterns) and patterns:
        names = set(patterns)
        return {name: target for name, target in known.items() if name in names}
    return find_target_modules(model, patterns)


def narrowed(model: CausalModel, choice: Choice, names: Collection[str], why: str) -> Choice:
    """Keep only the layers `names` of a choice; the others are left out for the reason given."""
    targets = {name: layer for name, layer in choice.targets.items() if name in names}
    left_out = choice.left_out | dict.fromkeys(choice.targets.keys() - targets.keys(), why)
    return Choice(targets, left_out, what_is_reached(model, targets, left_out).noting(*choice.reach.notes))


def _none_left(wanted: Mapping[str, TargetModule], left_out: Mapping[str, str], rank: int) -> InputError:
    told = [(name, left_out[name]) for name in wanted] or list(left_out.items())
    name, why = min(told, key=lambda one: one[1] == NOT_TEXT)  # What happened to the language model says more.
    if why == _narrow(rank):
        layer, widest = wanted[name], max(min(layer.d_out, layer.d_in) for layer in wanted.values())
        return InputError(
            f"adapter.rank: {rank} does not fit target module '{name}' of shape ({layer.d_out}, {layer.d_in}), nor any "
            f"other; use 1 to {widest}."
        )
    return InputError(f"adapter: no linear layer is left that can have one; left out are layers {why} ({name}).")


def _narrow(rank: int) -> str:
    return f"narrower than rank {rank}"


def _unfit(model: CausalModel, layers: Mapping[str, TargetModule], *, rank: int, by_example: bool) -> dict[str, str]:
    """Name -> why it can have no adapter; the first reason that holds."""
    tensors = whole_tensors(layers)
    owners = {tensor: held[0] for tensor, held in tensors.items()}
    experts = {expert.name: (expert, tensor) for tensor, held in tensors.items() for expert in held}
    layers = {name: layer for name, layer in layers.items() if name not in experts}
    uses, inside = try_layers(model, {**layers, **owners}), text_part(model)
    tensor_uses = {tensor: uses.pop(tensor) for tensor in tensors}
    bypassed = bypassed_layers(model, layers)
    grouped = _routed(uses)
    found: dict[str, str] = {}
    for name, layer in layers.items():
        use = uses[name]
        if not use.called and not inside(name):
            found[name] = NOT_TEXT
        elif not is_linear(layer):
            found[name] = NOT_LINEAR
        elif name in bypassed:
            found[name] = BYPASSED
        elif _kind(name) in grouped:  # A layer of an expert to which no token came
            if by_example:
                found[name] = MIXED
        elif not use.called:
            found[name] = UNCALLED
        elif not use.felt:
            found[name] = UNFELT
        if name not in found and rank > min(layer.d_out, layer.d_in):
            found[name] = _narrow(rank)
    for name, (expert, tensor) in experts.items():
        use = tensor_uses[tensor]
        if not use.called:
            found[name] = UNCALLED if inside(name) else NOT_TEXT
        elif not (use.felt and expert.is_read):
            found[name] = UNFELT
        elif not expert.form.held:
            found[name] = NOT_HELD
        elif not use.apart and expert.form.by_token and by_example:
            found[name] = MIXED
        elif rank > min(expert.d_out, expert.d_in):
            found[name] = _narrow(rank)
    return found


def _routed(uses: Mapping[str, LayerUse]) -> set[str]:
    return {_kind(name) for name, use in uses.items() if use.called and not use.apart}


def _kind(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


@torch.no_grad()
def is_linear(layer: TargetModule) -> bool:
    """Whether the layer computes W x + b and nothing else: by where its forward is written, or tried on noise."""
    module = layer.module
    if type(module).forward.__module__.startswith(KNOWN_FORWARDS) or type(module) is nn.Linear:
        return True
    weight = layer.module.get_parameter("weight")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 3, layer.d_in, generator=generator).to(weight)
    try:
        output = module(inputs)
    except RuntimeError:  # It asks for another shape, as DeepSeek-V4's layer of several groups does.
        return False
    if not isinstance(output, torch.Tensor) or output.shape != (2, 3, layer.d_out):
        return False
    bias = module.bias if isinstance(module.bias, torch.Tensor) else torch.zeros_like(weight[0, 0])
    product = inputs @ (weight if layer.transposed else weight.T) + bias
    return weight.is_meta or torch.allclose(output, product, rtol=1e-2, atol=1e-2)
