"""The number format in which a model's weights are held where the user leaves the choice to us."""

import os

import torch

from unlora.models.adapter_target import plain_base
from unlora.models.load import read_config
from unlora.models.locate import locate
from unlora.run.input_settings import ModelSettings
from unlora.runtime import resolve_dtype

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables by which oneDNN, which multiplies for torch, is kept from instructions of the processor."""


def number_format(wanted: ModelSettings, device: torch.device) -> torch.dtype:
    """Return the format that is named; for "auto" the fastest in which nothing of the files is lost.

    On an accelerator that is bfloat16. On a processor it is float32, but for bfloat16 files where bfloat16 products are
    several times as fast (docs/performance.md has how far results differ).

    Raises:
        InputError: the model's config is needed and cannot be read.
    """
    if wanted.dtype != "auto" or device.type != "cpu" or not multiplies_bfloat16_fast():
        return resolve_dtype(wanted.dtype, device)
    name = plain_base(wanted.name, wanted.base)
    config = read_config(name, locate(name), wanted.trust_remote_code)
    rounded = getattr(config, "quantization_config", None) is not None  # says itself in what it computes
    return torch.bfloat16 if config.dtype == torch.bfloat16 and not rounded else torch.float32


def multiplies_bfloat16_fast() -> bool:
    """Whether the processor has AMX and oneDNN may use it.

    With AVX512-BF16 alone a training step takes half as long again as in float32, and without that four times as long
    (SmolLM2, torch 2.13): there bfloat16 does not pay.
    """
    limit = next((os.environ[name].upper() for name in LIMITS if os.environ.get(name)), "ALL")
    allowed = limit in ("ALL", "DEFAULT") or "AMX" in limit
    return allowed and bool(torch.cpu.get_capabilities().get("amx_bf16", False))
