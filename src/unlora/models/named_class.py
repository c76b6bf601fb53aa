"""The class that a model's config.json names, which those load who deploy it, and the auto class that makes it.

`AutoModelForCausalLM` takes the text part alone of some models of several parts (Llama 4, Qwen 3.5), whose layers have
other names there: an adapter made on it would change nothing in the class that is deployed.
"""

from collections.abc import Collection
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)

from unlora.models.quiet import quiet


def auto_class(config: PretrainedConfig) -> Any:
    """Return `AutoModelForCausalLM`, or `AutoModelForImageTextToText` where that alone makes the class that is named.

    A model that brings its own code, or has an encoder for text, is left to the former.
    """
    named = config.architectures or []
    if config.is_encoder_decoder or hasattr(config, "auto_map"):
        return AutoModelForCausalLM
    autos: Any = (
        (AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING),
        (AutoModelForImageTextToText, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING),
    )
    makes = (auto for auto, made in autos if type(config) in made and made[type(config)].__name__ in named)
    return next(makes, AutoModelForCausalLM)


def other_class(model: PreTrainedModel) -> str | None:
    """Say that a model is not of the class that its configuration names; None where it is, or where none is named."""
    named, found = model.config.architectures, type(model).__name__
    if not named or found in named:
        return None
    return f"Its config.json names {', '.join(named)}; the adapter is for {found} and may not be felt in another."


def deaf_class(model: PreTrainedModel, names: Collection[str]) -> str | None:
    """Say that `AutoModelForCausalLM` gives another class of the same files, in which an adapter on `names` is nothing.

    It is that of the text part alone, whose layers go by other names: PEFT loads the adapter there with a warning, and
    every factor stays at its start. None where the class is the same, or has layers of these names.
    """
    config = model.config
    made: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)] if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else None
    if made is None or made is type(model) or hasattr(config, "auto_map"):
        return None
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), quiet():
            found = {name for name, _ in AutoModelForCausalLM.from_config(config).named_modules()}
    except Exception:  # Whatever a class raises that cannot be made of this configuration: nobody loads that either.
        return None
    if found.issuperset(names):
        return None
    return (
        f"AutoModelForCausalLM gives {made.__name__} of the same files, whose layers have other names: the adapter is "
        f"not felt there. Load {type(model).__name__}, or merge it (unlora export --merged)."
    )
