"""The experts of a mixture, which one tensor of each layer holds together: every expert's matrix is a layer y = W x.

transformers keeps the experts of a layer in tensors of shape (expert, d_out, d_in) or (expert, d_in, d_out), or in a
matrix that has those of all experts one below the other. A gate and an up projection lie in one tensor, one after the
other or in turn; which row is which does not matter here, because both read the same input: their matrix is one linear
layer of 2 x the inner width.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from unlora.errors import InputError
from unlora.models.expert_forms import ExpertForm, form_of
from unlora.models.target_modules import TargetModule, find_target_modules
from unlora.models.wrapping import CausalModel, canonical_name, unwrap
from unlora.shapes import Weight

ROUTERS = {"gate", "router", "router_proj"}


@dataclass(frozen=True, eq=False)
class ExpertModule(TargetModule):
    """One expert's matrix, a slice of the tensor that holds all of its layer's; `module` is what owns that tensor.

    `transposed` says that the slice is stored as (d_in, d_out).
    """

    parameter: str
    """Canonical name of the tensor, such as "model.layers.0.mlp.experts.gate_up_proj"."""
    index: int
    """Which of the experts, from 0."""
    count: int
    """How many experts the tensor holds."""
    reader: nn.Module
    """The module whose forward pass reads the tensor: what owns it, or what that lies in."""
    path: str
    """The tensor's name from there on, one of the form's."""
    form: ExpertForm

    def weight(self) -> Weight:
        """Return W as (d_out, d_in) in float32, detached; a view of the model's memory where that is float32."""
        stored = slices(experts_tensor(self), self.count)[self.index].detach().float()
        return stored.T if self.transposed else stored

    @property
    def is_read(self) -> bool:
        """Whether any token can come to it."""
        return self.form.read is None or self.index < int(getattr(self.reader, self.form.read))

    def leaf_weight(self) -> nn.Parameter:
        """There is none: the parameter is of all experts."""
        raise TypeError(f"{self.name}: a slice of {self.parameter} is no parameter")


def experts_tensor(expert: ExpertModule) -> nn.Parameter:
    """The tensor that holds all experts of a layer."""
    return expert.module.get_parameter(expert.parameter.rpartition(".")[2])


def slices(tensor: Tensor, count: int) -> Float[Tensor, "expert row column"]:
    """A tensor of `count` experts as one matrix of each; a view."""
    return tensor if tensor.ndim == 3 else tensor.view(count, -1, tensor.shape[-1])


def find_experts(model: CausalModel) -> dict[str, ExpertModule]:
    """Find every expert's matrices in the classes whose form is known (`expert_forms`), in model order.

    They are named as separate layers would be: "model.layers.0.mlp.experts.3.gate_up_proj".

    Args:
        model: Plain or with an adapter; the names found are the same.
    """
    found: dict[str, ExpertModule] = {}
    for wrapped_name, module in unwrap(model).named_modules():
        reader = canonical_name(wrapped_name)
        form = form_of(module)
        if reader is not None and form is not None:
            found |= {one.name: one for kind in form.tensors for one in _experts_in(module, reader, form, kind)}
    return found


def _experts_in(reader: nn.Module, reader_name: str, form: ExpertForm, path: str) -> Iterator[ExpertModule]:
    """The experts of one tensor; none where there is no such tensor, or only one expert, which PEFT takes for none."""
    inside, _, kind = path.rpartition(".")
    owner = plain_layer(reader.get_submodule(inside)) if inside else reader
    tensor = owner._parameters.get(kind)
    if tensor is None or not tensor.is_floating_point() or tensor.ndim != (3 if form.count is None else 2):
        return
    count = len(tensor) if form.count is None else int(getattr(reader, form.count))
    transposed, holder = path in form.transposed, f"{reader_name}.{inside}" if inside else reader_name
    if count < 2:
        return
    first, second = slices(tensor, count).shape[1:]
    d_out, d_in = (second, first) if transposed else (first, second)
    for index in range(count):
        name, parameter = f"{holder}.{index}.{kind}", f"{holder}.{kind}"
        yield ExpertModule(name, owner, d_out, d_in, transposed, parameter, index, count, reader, path, form)


def plain_layer(module: nn.Module) -> nn.Module:
    """What PEFT's wrappers, which may lie in each other, stand around; the module itself where there are none."""
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


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
    blocks = _blocks(model)
    found: set[str] = set()
    for name, layer in layers.items():
        above = name.rpartition(".")[0]
        counts = {blocks.get(above), blocks.get(above.rpartition(".")[0])}
        if ROUTERS & set(name.split(".")[-2:]) and layer.d_out in counts:
            found.add(name)
    return found


def _blocks(model: CausalModel) -> dict[str, int]:
    """Canonical name of what reads the experts of a layer, and of the block around it -> how many experts."""
    found: dict[str, int] = {}
    for one in find_experts(model).values():
        reader = one.parameter.removesuffix(f".{one.path}")
        found |= {reader: one.count, reader.rpartition(".")[0]: one.count}
    return found
