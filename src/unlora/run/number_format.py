"""The number format in which a model's weights are held where the user leaves the choice to us."""

import time
from functools import cache

import torch

from unlora.models.adapter_target import plain_base
from unlora.models.load import read_config
from unlora.models.locate import locate
from unlora.run.input_settings import ModelSettings
from unlora.runtime import resolve_dtype

WORTH_IT = 1.5
"""How many times as fast bfloat16 products must be: a training step also adds, normalises and casts."""

SHAPE = (512, 576, 1536)
"""Rows, inputs and outputs of the product that is timed: some questions in a layer of a small model."""

REPEATS = 11

INSTRUCTIONS = {"bfloat16": "avx512_bf16", "float16": "avx512_fp16"}
"""Half format -> what an x86 processor must have to multiply it."""


def number_format(wanted: ModelSettings, device: torch.device) -> torch.dtype:
    """Return the format that is named; for "auto" the fastest in which nothing of the files is lost.

    On an accelerator that is bfloat16. On a processor it is float32, but for bfloat16 files where bfloat16 products are
    several times as fast (docs/performance.md has how far results differ).

    Raises:
        InputError: the model's config is needed and cannot be read.
    """
    if wanted.dtype != "auto" or device.type != "cpu":
        return resolve_dtype(wanted.dtype, device)
    name = plain_base(wanted.name, wanted.base)
    config = read_config(name, locate(name), wanted.trust_remote_code)
    rounded = getattr(config, "quantization_config", None) is not None  # says itself in what it computes
    lossless = config.dtype == torch.bfloat16 and not rounded
    return torch.bfloat16 if lossless and multiplies_bfloat16_fast() else torch.float32


def multiplies_bfloat16_fast() -> bool:
    """Whether bfloat16 products are at least `WORTH_IT` times as fast here, by a measurement of a tenth of a second.

    The names of a processor's instructions do not say it: with AVX512-BF16 a step of SmolLM2 takes 0.6 of float32's
    time on an AMD EPYC and 1.4 times it on an Intel Xeon that is kept from AMX. Ratios that were met are 0.2 (without
    such instructions), 2.1 to 3 (AVX512-BF16 on AMD, a busy machine) and 8 (AMX), so that noise does not decide.
    """
    return _speedup() >= WORTH_IT


def is_emulated(dtype: str) -> bool:
    """Whether an x86 processor has no instructions for a format; of others nothing is known here.

    Without AVX-512 torch 2.13 takes some fifty times float32's time for the products of a backward pass
    (findings/torch-bfloat16-backward.sh).
    """
    has = torch.cpu.get_capabilities()
    return has.get("architecture") == "x86_64" and dtype in INSTRUCTIONS and not has.get(INSTRUCTIONS[dtype], False)


@cache
def _speedup() -> float:
    """Float32's shortest time over bfloat16's; the two take turns, so that a busy moment meets both."""
    if not torch.cpu.get_capabilities().get(INSTRUCTIONS["bfloat16"], False):
        return 0.0  # No instruction, no gain, and the emulated product is slow to measure.
    rows, inputs, outputs = SHAPE
    shortest = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    for _ in range(REPEATS):
        for dtype in shortest:
            left, right = torch.ones(rows, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype)
            begun = time.perf_counter()
            torch.mm(left, right.T)
            shortest[dtype] = min(shortest[dtype], time.perf_counter() - begun)
    return shortest[torch.float32] / shortest[torch.bfloat16]
