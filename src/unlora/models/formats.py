"""In which format a model's files hold its weights, by what its config says, before anything is read."""

import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from unlora.errors import InputError
from unlora.models.dequantise import is_rounded
from unlora.models.quantised import Bits
from unlora.models.reading import reading

MULTIPLIED_OUT = {
    "fp8": None, "mxfp8": None, "mxfp4": None, "compressed-tensors": "compressed_tensors", "torchao": "torchao",
}  # fmt: skip
"""Methods whose files are read as ordinary numbers -> the module that transformers needs for that."""
BY_THEIR_LIBRARY = {"torchao"}
"""Of these, the ones that transformers reads as tensors of the library's own class, which gives the numbers itself;
the others it multiplies out when it is asked to."""


def recorded_quantisation(config: PreTrainedConfig) -> Bits | None:
    """How the model's own files hold the linear layers, as far as bitsandbytes rounded them."""
    options = _options(config)
    if options.get("load_in_4bit"):
        return "4bit"
    return "8bit" if options.get("load_in_8bit") else None


def multiplied_out(config: PreTrainedConfig) -> str | None:
    """Name the format that the files are read out of into ordinary numbers; None where nothing has to be done."""
    method = _options(config).get("quant_method")
    return str(method) if method in MULTIPLIED_OUT else None


def settle_format(name: str, config: PreTrainedConfig) -> PreTrainedConfig:
    """Refuse formats of libraries that are not used here, and ask transformers to multiply out those that it knows.

    Args:
        name: of the model, for messages.
        config: as it was read; changed and returned.

    Raises:
        InputError: naming the format.
    """
    recorded = _recorded(config)
    if recorded is None or recorded_quantisation(config) is not None:
        return config
    method = _options(config).get("quant_method")
    if method not in MULTIPLIED_OUT:
        raise InputError(
            f"model '{name}': its config.json says that the weights are held in the format "
            f"'{method or recorded}', which cannot be read here; use the model in full precision, or in 4 or 8 bits "
            "of bitsandbytes."
        )
    if (module := MULTIPLIED_OUT[method]) is not None and importlib.util.find_spec(module) is None:
        raise InputError(
            f"model '{name}': its weights are held in the format '{method}', which needs the package of that name: "
            f"pip install {method}."
        )
    for part in (config, config.get_text_config()):
        options = getattr(part, "quantization_config", None)
        if isinstance(options, dict) and method not in BY_THEIR_LIBRARY:
            options["dequantize"] = True
    return config


def settle_weights(name: str, model: PreTrainedModel, format: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """Refuse a model part of which is in another format than its config says; make a multiplied-out one a plain one.

    Args:
        name: of the model, for messages.
        model: as it was read.
        format: what `multiplied_out` said.
        dtype: of the weights of a multiplied-out model, which transformers gives in several.

    Raises:
        InputError: naming the first such tensor.
    """
    if format in BY_THEIR_LIBRARY:
        _read_out(name, model)
    for path, parameter in model.named_parameters():
        packed = getattr(parameter, "quant_state", None) is not None or getattr(parameter, "SCB", None) is not None
        if not packed and not (parameter.is_floating_point() and parameter.dtype.itemsize >= 2):
            raise InputError(
                f"model '{name}': {path} is held as {str(parameter.dtype).removeprefix('torch.')}, which cannot be "
                "read here; use the model in full precision."
            )
    for path, module in model.named_modules():
        if type(module).__module__.startswith("bitsandbytes.") and not is_rounded(module):
            raise InputError(
                f"model '{name}': its config.json says that bitsandbytes rounded the weights, and its files hold "
                f"{path} in full precision; remove quantization_config from config.json."
            )
    if format is not None:
        forget_format(model)
        _cast(model, dtype)
    return model


@torch.no_grad()
def _read_out(name: str, model: PreTrainedModel) -> None:
    """Put the numbers that they stand for in place of the tensors of a library's own class, one after another."""
    found: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            kind = type(parameter)
            if kind.__module__.partition(".")[0] in BY_THEIR_LIBRARY:
                if id(parameter) not in found:
                    with reading(f"model '{name}': {path}.{own} cannot be read out of a {kind.__name__}"):
                        found[id(parameter)] = nn.Parameter(parameter.dequantize(), requires_grad=False)
                setattr(module, own, found[id(parameter)])  # A matrix that two layers share stays one.


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give the parameters one number format; buffers, such as rotary frequencies, keep theirs, as in any model."""
    kept = {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}
    for path, parameter in model.named_parameters():
        if not kept & set(path.split(".")):
            parameter.data = parameter.data.to(dtype)


def forget_format(model: PreTrainedModel) -> PreTrainedModel:
    """Take off what transformers remembers of a format that is no longer there, so that a plain model is saved."""
    quantiser = getattr(model, "hf_quantizer", None)
    if quantiser is not None:
        quantiser.remove_quantization_config(model)
    # With its conversions kept, saving would turn the weights into that format again.
    for attribute, value in {
        "_weight_conversions": None,
        "is_loaded_in_4bit": False,
        "is_loaded_in_8bit": False,
    }.items():
        setattr(model, attribute, value)
    return model


def _recorded(config: PreTrainedConfig) -> Any:
    for part in (config, config.get_text_config()):
        recorded = getattr(part, "quantization_config", None)
        if recorded is not None:
            return recorded
    return None


def _options(config: PreTrainedConfig) -> dict[str, Any]:
    recorded = _recorded(config)
    if recorded is None or isinstance(recorded, dict):
        return recorded or {}
    return recorded.to_dict() if hasattr(recorded, "to_dict") else {}
