"""Models in 4 or 8 bits through bitsandbytes: how they are read, and how they are recognised.

Every linear layer but the output head is rounded; the rest stays in the number format that is computed in. "8bit" is
LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339: rows of weights and of activations, outlier activations apart), which
computes in float16; "4bit" is 4-bit NormalFloat (nf4) in blocks of 64 weights (Dettmers et al. 2023, arXiv 2305.14314),
without double quantisation.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from unlora.errors import InputError
from unlora.models.quiet import quiet
from unlora.models.target_modules import find_target_modules
from unlora.models.wrapping import CausalModel, unwrap

Bits = Literal["4bit", "8bit"]

NF4_BLOCK = 64
"""Weights that share a scale in nf4."""

EXTRA = 'pip install "unlora[quantisation]"'


def has_bitsandbytes() -> bool:
    """Whether bitsandbytes is installed."""
    return importlib.util.find_spec("bitsandbytes") is not None


def loading_options(quantisation: Bits, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained` that read a full-precision model in 4 or 8 bits, onto `device`.

    Raises:
        InputError: bitsandbytes is not installed.
    """
    if not has_bitsandbytes():
        raise InputError(f"model.quantisation: {quantisation} needs bitsandbytes: {EXTRA}.")
    if quantisation == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config, "device_map": {"": device}}


def quantisation_of(model: CausalModel) -> Bits | None:
    """How a model's linear layers are rounded; None for one in floating point, or in another library's format."""
    plain = unwrap(model)
    if getattr(plain, "is_loaded_in_4bit", False):
        return "4bit"
    return "8bit" if getattr(plain, "is_loaded_in_8bit", False) else None


def misread_layer(model: CausalModel) -> str | None:
    """Name a layer that bitsandbytes reads back wrongly in nf4 on a CPU; None where all is well, or on a GPU.

    Its kernel for CPUs (0.50) assumes that no block of 64 weights crosses the end of a row, and does not check.
    """
    if unwrap(model).device.type != "cpu":
        return None
    layers = find_target_modules(model).values()
    return next((f"{layer.name} has {layer.d_in}" for layer in layers if layer.d_in % NF4_BLOCK), None)


def refuse_misread(model: CausalModel, name: str) -> None:
    """Refuse a 4-bit model that would be computed wrongly here.

    Raises:
        InputError: naming the first layer.
    """
    misread = misread_layer(model) if quantisation_of(model) == "4bit" else None
    if misread is not None:
        raise InputError(
            f"model '{name}': in 4 bits on a CPU a layer needs a multiple of {NF4_BLOCK} inputs ({misread}); use "
            "model.quantisation=8bit, or a GPU."
        )


def compute_in_full(model: nn.Module) -> None:
    """Keep bitsandbytes from computing nf4 in bfloat16 on those CPUs that can: the numbers would depend on the CPU.

    It also repacks the weights for that, so that their bytes change at the first forward pass.
    """
    from bitsandbytes.nn.modules import Linear4bit  # seconds, and an extra

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def loading_quietly() -> Iterator[None]:
    """Hide what transformers and bitsandbytes say while a model is loaded: bars, advice about kernels, casts."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet():
            # What became of such a request is checked, and refused, once the model is there.
            warnings.filterwarnings("ignore", "You passed `quantization_config`")
            yield
    finally:
        logger.setLevel(level)
