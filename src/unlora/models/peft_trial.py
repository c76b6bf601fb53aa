"""Which layers PEFT puts an adapter on, tried on the model without its weights before anything depends on it.

PEFT refuses some layers by name and takes the names of others for something else: in models whose experts were separate
layers once, "gate_proj" or a name that ends so means the tensor that holds all experts now, also for a dense layer.
"""

import warnings
from collections.abc import Sequence

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from unlora.models.experts import peft_target_parameters
from unlora.models.quiet import quiet
from unlora.models.target_modules import find_target_modules, peft_target_modules
from unlora.models.wrapping import CausalModel, canonical_name, unwrap

REFUSED = "that PEFT refuses"
MISTAKEN = "whose names PEFT takes for those of fused experts"


def not_attached(model: CausalModel, names: Sequence[str]) -> dict[str, str]:
    """Return which of the layers `names` an adapter cannot be put on, and why not.

    A model that cannot be built without weights is taken to be ordinary; what was attached is compared again later.
    """
    if _attached(model, names) in (set(names), None):
        return {}
    found: dict[str, str] = {}
    for last in dict.fromkeys(name.rpartition(".")[2] for name in names):
        alike = [name for name in names if name.rpartition(".")[2] == last]
        attached = _attached(model, alike)
        if attached != set(alike):
            found |= dict.fromkeys(alike, MISTAKEN if attached else REFUSED)
    return found


def tensors_not_attached(model: CausalModel, names: Sequence[str], tensors: Sequence[str]) -> bool:
    """Whether PEFT puts no adapter on the tensors `tensors` of experts beside the layers `names`, on all of them."""
    return _attached(model, names, tensors) not in ({*names, *tensors}, None)


def _attached(model: CausalModel, names: Sequence[str], tensors: Sequence[str] = ()) -> set[str] | None:
    """Names of what PEFT adapts when asked for `names`: empty where it refuses, None where it cannot be tried."""
    twin = without_weights(unwrap(model))
    if twin is None:
        return None
    config = LoraConfig(
        r=1,
        target_modules=peft_target_modules(twin, names),
        target_parameters=peft_target_parameters(twin, tensors) or None,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(layer.transposed for layer in find_target_modules(twin, names).values()) if names else False,
    )
    try:
        with quiet(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What it says of a trial that fails is of no use to anyone.
            wrapped = get_peft_model(twin, config)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        # A fused tensor can be mistaken in part, which fails; the word for both is in what was asked.
        return {"fused"} if "fused" in str(error) else set()
    found: set[str] = set()
    for name, module in wrapped.named_modules():
        if isinstance(module, BaseTunerLayer):
            adapted = canonical_name(name.removeprefix("base_model.model."))
            # A layer that PEFT wraps as a bare parameter goes by that: the halves of an adapter do not hold there.
            found.add(f"{adapted}.{module.parameter_name}" if isinstance(module, ParamWrapper) else f"{adapted}")
    return found


def without_weights(model: PreTrainedModel) -> PreTrainedModel | None:
    """Build the same model on the meta device; None for one whose code needs values."""
    settings = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), quiet():
            return type(model)(type(model.config).from_dict(settings))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return None
