"""In which tensors each class of transformers keeps the experts of a layer, and which of them PEFT can hold.

Most classes follow one interface, which a decorator of transformers gives them. The others are known by name; what a
class does with its tensors is tested against its own forward pass (tests/importance/test_experts.py).
"""

from dataclasses import dataclass

from torch import nn

PROJECTIONS = ("gate_up_proj", "up_proj", "down_proj")
"""Names under which the classes that follow transformers' interface for experts keep them."""


@dataclass(frozen=True)
class ExpertForm:
    """How one class keeps its experts. Each tensor is (expert, ...), or the experts' matrices one below the other."""

    tensors: tuple[str, ...]
    """Names from the module that reads them on, such as "down_proj" or "mlp.w1"."""
    transposed: tuple[str, ...] = ()
    """Those whose slices are (d_in, d_out)."""
    count: str | None = None
    """Attribute with the number of experts, of matrices that lie one below the other."""
    read: str | None = None
    """Attribute with how many of the experts are read, where a tensor has more: LongCat-Flash has a gate also for those
    that hand a token on as it is."""
    held: bool = True
    """PEFT's adapter of its tensors acts. Where a class reads a tensor from outside the module that owns it, PEFT's
    wrapper stands in the way."""
    by_token: bool = True
    """Its tensors' owner is given the tokens as they stand in the text, and not sorted by expert."""


_DBRX = ExpertForm(("mlp.w1", "mlp.v1", "mlp.w2"), transposed=("mlp.w2",), count="num_experts", held=False)
_JETMOE = ExpertForm(("input_linear.weight", "output_linear.weight"), by_token=False)
_LLAMA4 = ExpertForm(("gate_up_proj", "down_proj"), transposed=("gate_up_proj", "down_proj"), by_token=False)
BY_CLASS = {
    "DbrxExperts": _DBRX,
    "JetMoeMoE": _JETMOE,
    "JetMoeMoA": _JETMOE,
    "Llama4TextExperts": _LLAMA4,
    "LongcatFlashExperts": ExpertForm(("gate_up_proj", "down_proj"), read="num_routed_experts"),
    "Step3p7Experts": ExpertForm(("gate_up_proj", "down_proj")),
}
"""Class of the module that reads the tensors -> how it keeps them."""


def form_of(module: nn.Module) -> ExpertForm | None:
    """How a module keeps the experts that it reads; None for one that has none, or in a form that is not known."""
    if all(hasattr(module, name) for name in ("is_transposed", "has_gate", "has_bias", "_apply_gate")):
        return ExpertForm(PROJECTIONS, transposed=PROJECTIONS if getattr(module, "is_transposed", False) else ())
    return BY_CLASS.get(type(module).__name__)
