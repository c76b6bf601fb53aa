"""Which layers PEFT puts an adapter on, tried on the model without its weights before anything depends on it.

PEFT refuses some layers by name and takes the names of others for something else: in models whose experts were separate
layers once, "gate_proj" or a name that ends so means the tensor that holds all experts now, also for a dense layer. And
when it loads an adapter it renames what the file holds as transformers renames old checkpoints; a pattern that also
fits a new name takes the factors elsewhere, and they are left out without an error (findings/peft-reload-names.sh).
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from unlora.models.experts import peft_target_parameters
from unlora.models.quiet import quiet
from unlora.models.target_modules import find_target_modules, peft_target_modules
from unlora.models.wrapping import PEFT_PREFIX, CausalModel, canonical_name, unwrap

REFUSED = "that PEFT refuses"
MISTAKEN = "whose names PEFT takes for those of fused experts"
RENAMED = "whose names PEFT changes when it loads an adapter"


class _Trial(NamedTuple):
    """What came of asking PEFT for an adapter, by the canonical names of what is adapted."""

    attached: set[str]
    lost: set[str]
    """Of these, what has no factors any more once the adapter was saved and loaded."""


def not_attached(model: CausalModel, names: Sequence[str]) -> dict[str, str]:
    """Return which of the layers `names` an adapter cannot be put on, and why not.

    A model that cannot be built without weights is taken to be ordinary; what was attached is compared again later.
    """
    whole = _attached(model, names)
    if whole is None or whole == (set(names), set()):
        return {}
    found: dict[str, str] = {}
    for last in dict.fromkeys(name.rpartition(".")[2] for name in names):
        alike = [name for name in names if name.rpartition(".")[2] == last]
        trial = _attached(model, alike)
        if trial is None or trial.attached != set(alike):
            found |= dict.fromkeys(alike, MISTAKEN if trial is None or trial.attached else REFUSED)
        else:
            found |= dict.fromkeys((name for name in alike if name in trial.lost), RENAMED)
    return found


def tensors_not_attached(model: CausalModel, names: Sequence[str], tensors: Sequence[str]) -> bool:
    """Whether PEFT puts no adapter on the tensors `tensors` of experts beside the layers `names`, or loads none."""
    trial = _attached(model, names, tensors)
    return trial is not None and trial != ({*names, *tensors}, set())


def _attached(model: CausalModel, names: Sequence[str], tensors: Sequence[str] = ()) -> _Trial | None:
    """What PEFT adapts when asked for `names`: nothing where it refuses, None where it cannot be tried."""
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
            missing = _missing_when_loaded(wrapped)  # pyright: ignore[reportArgumentType]  not of several adapters
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        # A fused tensor can be mistaken in part, which fails; the word for both is in what was asked.
        return _Trial({"fused"} if "fused" in str(error) else set(), set())
    found, lost = set[str](), set[str]()
    for name, module in wrapped.named_modules():
        if isinstance(module, BaseTunerLayer):
            adapted = canonical_name(name.removeprefix(PEFT_PREFIX))
            # A layer that PEFT wraps as a bare parameter goes by that: the halves of an adapter do not hold there.
            adapted = f"{adapted}.{module.parameter_name}" if isinstance(module, ParamWrapper) else f"{adapted}"
            found.add(adapted)
            if any(key.startswith(f"{name}.lora_") for key in missing):
                lost.add(adapted)
    return _Trial(found, lost)


def _missing_when_loaded(wrapped: PeftModel) -> list[str]:
    """Keys of the adapter for which PEFT finds nothing in what it would have written of it."""
    written = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return [key for key in set_peft_model_state_dict(wrapped, written).missing_keys if ".lora_" in key]


def unread(model: PeftModel, keys: Iterable[str], missing: Iterable[str]) -> str:
    """Say which layers of the model a file has factors of that did not arrive there when PEFT loaded it.

    Args:
        model: with the adapter that PEFT has loaded.
        keys: of the file.
        missing: what PEFT found nothing for.

    Returns:
        A sentence with a way out; nothing where the file is simply of another model.
    """
    layers = find_target_modules(model)
    given = {key.removeprefix(PEFT_PREFIX).removesuffix(".lora_A.weight") for key in keys}
    empty = {key.removeprefix(PEFT_PREFIX).partition(".lora_")[0] for key in missing}
    adapted = {
        name.removeprefix(PEFT_PREFIX)
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer) and not isinstance(module, ParamWrapper)
    }
    lost = [name for name in layers if name in given and (name not in adapted or name in empty)]
    if not lost:
        return ""
    return (
        f" PEFT changes names when it loads an adapter of this class, and the factors of {len(lost)} layers that the "
        f"file has ({lost[0]}) do not arrive; others that load it with PEFT get another model too. Merge it where it "
        "was trained, or train it without these layers."
    )


def without_weights(model: PreTrainedModel) -> PreTrainedModel | None:
    """Build the same model on the meta device; None for one whose code needs values."""
    settings = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), quiet():
            return type(model)(type(model.config).from_dict(settings))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return None
