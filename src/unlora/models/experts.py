"""The experts of a mixture, which one tensor of each layer holds together: every expert's matrix is a layer y = W x.

transformers keeps the experts of a layer in tensors of shape (expert, d_out, d_in) or (expert, d_in, d_out). A gate and
an up projection lie in one of them, one after the other or in turn; which row is which does not matter here, because
both read the same input: their matrix is one linear layer of 2 x the inner width.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from unlora.errors import InputError
from unlora.models.target_modules import TargetModule, find_target_modules
from unlora.models.wrapping import CausalModel, canonical_name, unwrap
from unlora.shapes import Weight

ROUTERS = {"gate", "router", "router_proj"}
PROJECTIONS = ("gate_up_proj", "up_proj", "down_proj")
"""Names under which the classes that follow transformers' interface for experts keep them."""


@dataclass(frozen=True, eq=False)
class ExpertModule(TargetModule):
    """One expert's matrix, a slice of the tensor that holds all of its layer's; `module` is what owns that tensor.

    `transposed` says that the slice is stored as (d_in, d_out).
    """

    parameter: str
    """Canonical name of the tensor, such as "model.layers.0.mlp.experts.gate_up_proj"."""
    index: int
    """Which of the experts, from 0."""

    def weight(self) -> Weight:
        """Return W as (d_out, d_in) in float32, detached; a view of the model's memory where that is float32."""
        stored = experts_tensor(self)[self.index].detach().float()
        return stored.T if self.transposed else stored

    def leaf_weight(self) -> nn.Parameter:
        """There is none: the parameter is of all experts."""
        raise TypeError(f"{self.name}: a slice of {self.parameter} is no parameter")


def experts_tensor(expert: ExpertModule) -> nn.Parameter:
    """The tensor that holds all experts of a layer."""
    return expert.module.get_parameter(expert.parameter.rpartition(".")[2])


def find_experts(model: CausalModel) -> dict[str, ExpertModule]:
    """Find every expert's matrices in the classes that follow transformers' interface for experts, in model order.

    They are named as separate layers would be: "model.layers.0.mlp.experts.3.gate_up_proj". Experts in other forms (a
    stack of matrices in two dimensions, a batched product of all experts with all tokens) are not among them.

    Args:
        model: Plain or with an adapter; the names found are the same.
    """
    found: dict[str, ExpertModule] = {}
    for wrapped_name, module in unwrap(model).named_modules():
        holder = canonical_name(wrapped_name)
        if holder is None or not _follows_the_interface(module):
            continue
        for kind in PROJECTIONS:
            tensor = module._parameters.get(kind)
            if tensor is None or tensor.ndim != 3 or len(tensor) < 2 or not tensor.is_floating_point():
                continue
            transposed = bool(module.is_transposed)
            first, second = tensor.shape[1:]
            d_out, d_in = (second, first) if transposed else (first, second)
            for index in range(len(tensor)):
                name = f"{holder}.{index}.{kind}"
                found[name] = ExpertModule(name, module, d_out, d_in, transposed, f"{holder}.{kind}", index)
    return found


def find_all(model: CausalModel) -> dict[str, TargetModule]:
    """Find every linear layer, and every expert that shares a tensor: whatever may get an adapter."""
    return {**find_target_modules(model), **find_experts(model)}


def find_same_modules(model: CausalModel, targets: Mapping[str, TargetModule]) -> dict[str, TargetModule]:
    """Find the layers and experts of another model that have the names of `targets`.

    Raises:
        InputError: it has none of a name, or one of another shape.
    """
    layers = find_all(model)
    for name, target in targets.items():
        layer = layers.get(name)
        if layer is None or (layer.d_out, layer.d_in) != (target.d_out, target.d_in):
            found = "none" if layer is None else f"one of shape {(layer.d_out, layer.d_in)}"
            raise InputError(
                f"target module '{name}': has shape {(target.d_out, target.d_in)}; the other model has {found}."
            )
    return {name: layers[name] for name in targets}


def whole_tensors(experts: Mapping[str, TargetModule]) -> dict[str, list[ExpertModule]]:
    """Canonical name of each tensor -> its experts among these, in the order of the tensors."""
    found: dict[str, list[ExpertModule]] = defaultdict(list)
    for expert in experts.values():
        if isinstance(expert, ExpertModule):
            found[expert.parameter].append(expert)
    return dict(found)


def peft_target_parameters(model: CausalModel, wanted: Iterable[str]) -> list[str]:
    """Return a short list that makes PEFT choose exactly the tensors `wanted`: it takes every name that ends so."""
    names = set(wanted)
    every = [canonical_name(name) for name, _ in unwrap(model).named_parameters()]
    others = [f".{name}" for name in every if name is not None and name not in names]
    entries = dict[str, None]()
    for name in sorted(names):
        short = ".".join(name.split(".")[-2:])
        entries[name if any(other.endswith(f".{short}") for other in others) else short] = None
    return list(entries)


def routers(model: CausalModel, layers: Mapping[str, TargetModule]) -> set[str]:
    """Names of the linear layers that choose the experts of a token: in a block of experts, with an output for each."""
    blocks = {holder.rpartition(".")[0]: count for holder, count in _holders(model).items()}
    found: set[str] = set()
    for name, layer in layers.items():
        above = name.rpartition(".")[0]
        counts = {blocks.get(above), blocks.get(above.rpartition(".")[0])}
        if ROUTERS & set(name.split(".")[-2:]) and layer.d_out in counts:
            found.add(name)
    return found


def _holders(model: CausalModel) -> dict[str, int]:
    """Canonical name of what holds the experts of a layer -> how many."""
    return {one.parameter.rpartition(".")[0]: len(experts_tensor(one)) for one in find_experts(model).values()}


def _follows_the_interface(module: nn.Module) -> bool:
    """Whether transformers' decorator for classes of experts was put on its class."""
    return all(hasattr(module, name) for name in ("is_transposed", "has_gate", "has_bias", "_apply_gate"))
