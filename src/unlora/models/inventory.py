"""All weights of a model by kind, for the share of them that something reaches."""

from collections import Counter
from collections.abc import Callable, Mapping

from torch import nn

from unlora.models.dequantise import is_rounded
from unlora.models.experts import experts_tensor, find_experts
from unlora.models.target_modules import TargetModule, find_target_modules, head_weights
from unlora.models.wrapping import CausalModel, canonical_name, unwrap
from unlora.reach import LeftOut, Reach

FUSED = "fused experts"
OTHER = "not linear layers"


def what_is_reached(model: CausalModel, targets: Mapping[str, TargetModule], left_out: Mapping[str, str]) -> Reach:
    """Add up the weights of the layers `targets`, and of everything else by kind and reason.

    Args:
        model: Plain or with an adapter.
        targets: Canonical name -> layer that gets an adapter.
        left_out: Canonical name of a layer -> why it gets none. Tensors that are no linear layer need no entry.
    """
    weights, inside = weights_of(model), text_part(model)
    experts = find_experts(model)
    modules = {canonical_name(name): module for name, module in unwrap(model).named_modules()}
    counts, sizes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for name, size in weights.items():
        if name in targets:
            continue
        tensor = experts[name].parameter.removesuffix(".weight") if name in experts else name
        why = left_out.get(name) or (_tensor_kind(tensor, modules) if inside(name) else "outside the language model")
        kind = (_kind(tensor, model, inside), why)
        counts[kind] += 1
        sizes[kind] += size
    kinds = sorted(sizes, key=lambda kind: sizes[kind], reverse=True)
    return Reach(
        layers=sum(name not in experts for name in targets),
        experts=sum(name in experts for name in targets),
        weights=sum(weights[name] for name in targets),
        whole=sum(weights.values()),
        left_out=tuple(LeftOut(name, why, counts[name, why], sizes[name, why]) for name, why in kinds),
    )


def weights_of(model: CausalModel) -> dict[str, int]:
    """Canonical name -> how many numbers, of every tensor with two or more dimensions but embedding and head.

    A linear layer goes by its own name, and by its size in full where its weights are kept in fewer bits. A tensor that
    several layers share counts for the first; one that holds the experts of a layer counts expert by expert.
    """
    layers, seen, found = find_target_modules(model), set(head_weights(model)), dict[str, int]()
    for name, layer in layers.items():
        weight = layer.module.get_parameter("weight")
        found[name] = 0 if id(weight) in seen else layer.d_out * layer.d_in
        seen.add(id(weight))
    experts = find_experts(model)
    found |= {name: expert.d_out * expert.d_in for name, expert in experts.items()}
    seen |= {id(experts_tensor(expert)) for expert in experts.values()}
    for wrapped_name, parameter in unwrap(model).named_parameters():
        name = canonical_name(wrapped_name)
        if name is None or parameter.ndim < 2 or id(parameter) in seen or name.rpartition(".")[0] in layers:
            continue
        found[name.removesuffix(".weight")] = parameter.numel()
    return found


def linear_share(model: CausalModel) -> float:
    """Share of `weights_of` that stands in linear layers: what bitsandbytes rounds, which passes over fused experts."""
    weights = weights_of(model)
    return sum(weights[name] for name in find_target_modules(model)) / sum(weights.values())


def rounded_share(model: CausalModel) -> float:
    """Share of `weights_of` that a model in fewer bits holds in them; its own files may leave linear layers out."""
    weights = weights_of(model)
    rounded = (name for name, layer in find_target_modules(model).items() if is_rounded(layer.module))
    return sum(weights[name] for name in rounded) / sum(weights.values())


def text_part(model: CausalModel) -> Callable[[str], bool]:
    """Return what tells by a name whether that part of the model is of its language model.

    A model of several parts (text, images, sound) has a decoder, and a configuration of that alone.
    """
    plain = unwrap(model)
    decoder = _decoder_name(model) if plain.config.get_text_config() is not plain.config else None
    return lambda name: decoder is None or f"{name}.".startswith(f"{decoder}.")


def _decoder_name(model: CausalModel) -> str | None:
    plain = unwrap(model)
    decoder = plain.get_decoder()
    names = (canonical_name(name) for name, module in plain.named_modules() if module is decoder)
    return next(names, None) or None


def _tensor_kind(name: str, modules: Mapping[str | None, nn.Module]) -> str:
    holder = modules.get(name) or modules.get(name.rpartition(".")[0])
    return FUSED if "expert" in f"{name} {type(holder).__name__}".lower() and not name.endswith("bias") else OTHER


def _kind(name: str, model: CausalModel, inside: Callable[[str], bool]) -> str:
    """A name without the number of its block; of what is no part of the language model, the tower that it stands in."""
    parts = name.split(".")
    if not inside(name):
        decoder = (_decoder_name(model) or "").split(".")
        apart = next((place for place, part in enumerate(parts) if decoder[place : place + 1] != [part]), 0)
        return f"{parts[apart]}.*" if apart < len(parts) - 1 else parts[apart]
    numbered = ["*" if part.isdigit() else part for part in parts]
    return ".".join(numbered[numbered.index("*") + 1 :]) if "*" in numbered[:-1] else ".".join(numbered)
