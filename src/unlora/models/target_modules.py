"""Which linear layers get an adapter, under the names they have in the plain transformers model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from transformers.pytorch_utils import Conv1D

from unlora.errors import InputError, nearest
from unlora.models.dequantise import full_weight, is_rounded
from unlora.models.wrapping import CausalModel, canonical_name, unwrap
from unlora.shapes import Weight


@dataclass(frozen=True, eq=False)
class TargetModule:
    """One linear layer y = W x of the plain model, also when an adapter is wrapped around it."""

    name: str
    """Dotted name in the plain model, such as "model.layers.0.self_attn.q_proj"."""
    module: nn.Module
    """The layer itself (never the adapter around it): hooks on it see x and the gradient of y."""
    d_out: int
    d_in: int
    transposed: bool
    """The layer stores its weight as (d_in, d_out), as GPT-2's Conv1D does."""

    def weight(self) -> Weight:
        """Return W as (d_out, d_in) in float32, detached; a view of the layer's own memory where that fits.

        A layer in 4 or 8 bits is multiplied out anew at every call.
        """
        stored = full_weight(self.module)
        return stored.T if self.transposed else stored

    def leaf_weight(self) -> nn.Parameter:
        """Return the layer's own parameter, to take a gradient of.

        Raises:
            InputError: it is kept in 4 or 8 bits and can have none.
        """
        weight = self.module.get_parameter("weight")
        if is_rounded(self.module):
            raise InputError(
                f"target module '{self.name}': its weights are {weight.dtype} codes, which can have no gradient; use "
                "full precision, or what needs no gradient of the weights."
            )
        return weight


def find_target_modules(model: CausalModel, patterns: Sequence[str] | None = None) -> dict[str, TargetModule]:
    """Find linear layers by pattern, in model order; by default all of them. The output head is never one.

    Whether an adapter on them works is another matter (`unlora.models.choose`).

    Args:
        model: Plain or with an adapter; the names found are the same.
        patterns: Each a full name, its last component or components ("q_proj", "self_attn.q_proj"), or a glob on
            them ("model.layers.1*.mlp.*"; the star also crosses dots).

    Returns:
        Canonical name -> module.

    Raises:
        InputError: a pattern matches no linear layer, or there is none at all.
    """
    layers = _linear_layers(model)
    if not layers:
        raise InputError(f"{type(unwrap(model)).__name__}: has no linear layer that could take an adapter.")
    if patterns is None:
        return layers
    refuse_empty(patterns)
    chosen = set[str]().union(*matches_of(model, layers, patterns, "target module").values())
    return {name: layer for name, layer in layers.items() if name in chosen}


def refuse_empty(patterns: Sequence[str]) -> None:
    """Refuse a list of names that asks for nothing.

    Raises:
        InputError: it does.
    """
    if not patterns:
        raise InputError("target modules: the list is empty; leave it out to take every linear layer.")


def matches_of(
    model: CausalModel, layers: Mapping[str, TargetModule], patterns: Sequence[str], what: str
) -> dict[str, set[str]]:
    """For each pattern, the names that it matches.

    Raises:
        InputError: it matches none; `what` is what the message calls it.
    """
    found: dict[str, set[str]] = {}
    for pattern in patterns:
        found[pattern] = {pattern} if pattern in layers else {name for name in layers if _match(pattern, name)}
        if not found[pattern]:
            advice = _fused(model, pattern) or _advice(pattern, layers)
            raise InputError(f"{what} '{pattern}': matches no linear layer.{advice}")
    return found


def _match(pattern: str, name: str) -> bool:
    return fnmatchcase(f".{name}", f"*.{pattern}")


def _fused(model: CausalModel, pattern: str) -> str:
    """Say that a pattern names weights that are there, but no linear layer."""
    heads = head_weights(model)
    for name, parameter in unwrap(model).named_parameters():
        if (
            parameter.ndim > 1
            and id(parameter) not in heads
            and any(_match(pattern, one) for one in (name, name.removesuffix(".weight")))
        ):
            return f" {name} is one tensor of shape {tuple(parameter.shape)}, which can have no adapter here."
    return ""


def peft_target_modules(model: CausalModel, names: Sequence[str]) -> list[str]:
    """Return the shortest list that makes PEFT choose exactly the modules `names`.

    PEFT takes every module whose name ends in an entry, so a bare "q_proj" serves when all modules with that last
    component are wanted; other modules keep their full names.
    """
    wanted = set(names)
    all_names = (canonical_name(name) for name, _ in unwrap(model).named_modules())
    unwanted_suffixes = {_suffix(name) for name in all_names if name is not None and name not in wanted}
    entries = (name if _suffix(name) in unwanted_suffixes else _suffix(name) for name in names)
    return list(dict.fromkeys(entries))


def head_weights(model: CausalModel) -> set[int]:
    """Identities of the weights that read the tokens and of those that give the logits."""
    plain = unwrap(model)
    heads = (plain.get_output_embeddings(), plain.get_input_embeddings())
    return {id(head.weight) for head in heads if head is not None}


def _linear_layers(model: CausalModel) -> dict[str, TargetModule]:
    plain = unwrap(model)
    heads = head_weights(model)
    found: dict[str, TargetModule] = {}
    for wrapped_name, module in plain.named_modules():
        name = canonical_name(wrapped_name)
        if name is None or not isinstance(module, nn.Linear | Conv1D) or id(module.weight) in heads:
            continue
        if isinstance(module, nn.Linear):
            # Some classes work the widths of their layers out with tensors (a tower of Inkling's).
            d_out, d_in = int(module.out_features), int(module.in_features)
            found[name] = TargetModule(name, module, d_out, d_in, transposed=False)
        else:
            found[name] = TargetModule(name, module, module.nf, module.nx, transposed=True)
    return found


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]


def _advice(pattern: str, names: Iterable[str]) -> str:
    suffixes = sorted({_suffix(name) for name in names})
    return nearest(pattern, [*suffixes, *names]) or f" The model has {', '.join(suffixes)}."
