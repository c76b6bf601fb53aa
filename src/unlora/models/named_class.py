"""The class that a model's config.json names, which those load who deploy it, and the auto class that makes it.

`AutoModelForCausalLM` takes the text part alone of some models of several parts (Llama 4, Qwen 3.5), whose layers have
other names there: an adapter made on it would change nothing in the class that is deployed.
"""

from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)


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
