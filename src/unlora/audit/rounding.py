"""The model that people ship: adapter merged into the weights, saved, and read back in fewer bits."""

import gc
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

from unlora.adapters.anchored import ADAPTER_NAME, lora_layers
from unlora.errors import UnloraError
from unlora.models.load import LOADING_ERRORS
from unlora.models.quiet import quiet
from unlora.models.save import save_model
from unlora.models.target_modules import find_target_modules
from unlora.models.wrapping import CausalModel, canonical_name, unwrap

Format = Literal["int8", "nf4"]

NF4_BLOCK = 64
"""Weights that share a scale in nf4."""


def can_round() -> bool:
    """Whether bitsandbytes is installed."""
    return importlib.util.find_spec("bitsandbytes") is not None


def misread_layer(model: CausalModel) -> str | None:
    """Name a layer that bitsandbytes reads back wrongly in nf4 on a CPU; None where all is well, or on a GPU.

    Its kernel for CPUs (0.50) assumes that no block of 64 weights crosses the end of a row, and does not check.
    """
    if model.device.type != "cpu":
        return None
    layers = find_target_modules(model).values()
    return next((f"{layer.name} has {layer.d_in}" for layer in layers if layer.d_in % NF4_BLOCK), None)


def save_merged(model: CausalModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write W + s B A as a plain model folder. The model itself is not touched, not even for a moment.

    Needs memory for the merged layers beside the model's own; all other weights are shared.

    Args:
        model: Plain, or with an adapter (merged in, switched on or not).
        tokenizer: Saved beside it.
        folder: Must not exist yet, or be empty.

    Raises:
        InputError: the folder holds something already.
        UnloraError: the disk is full or the folder cannot be written.
    """
    plain = unwrap(model)
    settings = {key: value for key, value in plain.config.to_dict().items() if key != "quantization_config"}
    config = type(plain.config).from_dict(settings)
    with torch.device("meta"):
        twin = type(plain)(config)
    twin.load_state_dict(_merged_weights(model), assign=True)
    twin.tie_weights()
    twin.generation_config = plain.generation_config
    save_model(twin, tokenizer, folder)


@torch.no_grad()
def _merged_weights(model: CausalModel) -> dict[str, Tensor]:
    names = ((canonical_name(name), tensor) for name, tensor in unwrap(model).state_dict().items())
    weights = {name: tensor for name, tensor in names if name is not None}
    for name, layer in lora_layers(model):
        weight = weights[f"{name}.weight"]
        update = layer.get_delta_weight(ADAPTER_NAME)  # pyright: ignore[reportAttributeAccessIssue]  every linear one has it
        weights[f"{name}.weight"] = weight + update.to(weight.dtype)
    return weights


@contextmanager
def rounded(folder: Path, format: Format, *, device: torch.device, dtype: torch.dtype) -> Iterator[PreTrainedModel]:
    """Yield the model of a folder in 8 or 4 bits, and free it afterwards.

    Every linear layer but the output head is rounded; the rest stays in `dtype`. int8 is LLM.int8 (Dettmers et al.
    2022, arXiv 2208.07339: rows of weights and of activations, outlier activations apart), which computes in float16;
    nf4 is 4-bit NormalFloat in blocks of 64 (Dettmers et al. 2023, arXiv 2305.14314), without double quantisation,
    computed in `dtype`. On a CPU see `misread_layer` first.

    Raises:
        UnloraError: it cannot be read in this format on this device.
    """
    model_class: Any = AutoModelForCausalLM
    with quiet(), _silent_bitsandbytes():
        try:
            model = model_class.from_pretrained(
                folder,
                quantization_config=_config(format, dtype),
                device_map={"": device},
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
            ).eval()
            _compute_in_full(model)
        except LOADING_ERRORS as error:
            raise UnloraError(f"{format}: {' '.join(str(error).split())[:200]}") from None
        try:
            yield model
        finally:
            del model
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _compute_in_full(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from computing nf4 in bfloat16 on those CPUs that can: the numbers would depend on the CPU."""
    from bitsandbytes.nn.modules import Linear4bit  # seconds, and an extra

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _config(format: Format, dtype: torch.dtype) -> BitsAndBytesConfig:
    if format == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


@contextmanager
def _silent_bitsandbytes() -> Iterator[None]:
    """Hide its advice about kernels and its notice of every cast."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
