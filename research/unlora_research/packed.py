"""Write a model's files in the formats of others: float8 codes with scales (FP8), 4-bit ones (MXFP4), integers.

No library writes them on a CPU; transformers reads both there, as ordinary numbers. And 8-bit integers with a scale a
row, as llm-compressor writes them, which transformers reads by compressed-tensors.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unlora.artifacts import read_json_object, write_json

FP8_BLOCK, FP8_LARGEST = 32, 448.0
"""Side of the square that has one scale, and the largest number of float8 e4m3."""
INT8_LARGEST = 127
MX_BLOCK = 32
"""Weights that share a scale, along a row: the input's side (OCP Microscaling Formats 1.0, section 5.2)."""
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What the lower three bits of a code stand for; the fourth is the sign."""
E2M1_EXPONENT, E8M0_BIAS = 2, 127
"""Exponent of the largest code, and of the scales, which are powers of two."""


class Packed(NamedTuple):
    """Rows of 4-bit codes."""

    blocks: Tensor
    """(..., row, block, 16) bytes of two codes each, the first in the lower half."""
    scales: Tensor
    """(..., row, block) exponents, plus 127."""


def write_fp8(model: Path, folder: Path) -> Path:
    """Write a model's projections as float8 codes with a scale for every block, as files of names in -FP8 have them.

    Where it is there already, nothing is done.
    """
    return _rewrite(model, folder, _fp8)


def _fp8(tensors: dict[str, Tensor]) -> dict[str, Any]:
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rows, columns = tensors[name].shape
        blocks = tensors[name].float().reshape(rows // FP8_BLOCK, FP8_BLOCK, columns // FP8_BLOCK, FP8_BLOCK)
        scale = blocks.abs().amax(dim=(1, 3)) / FP8_LARGEST
        codes = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
        tensors[name], tensors[f"{name}_scale_inv"] = codes, scale
    options = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [FP8_BLOCK, FP8_BLOCK]}
    return {**options, "fmt": "e4m3"}


def write_mxfp4(model: Path, folder: Path) -> Path:
    """Write the experts of a model of gpt-oss' class as 4-bit codes, as its published files have them.

    Where it is there already, nothing is done.
    """
    return _rewrite(model, folder, _mxfp4)


def _mxfp4(tensors: dict[str, Tensor]) -> dict[str, Any]:
    for name in [name for name in tensors if name.endswith((".experts.gate_up_proj", ".experts.down_proj"))]:
        packed = pack_mxfp4(tensors.pop(name).float().transpose(1, 2))
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = packed.blocks, packed.scales
    return {"quant_method": "mxfp4", "modules_to_not_convert": None}


def write_int8(model: Path, folder: Path) -> Path:
    """Write a model's projections as 8-bit integers with a scale for every row, in the format compressed-tensors.

    Where it is there already, nothing is done.
    """
    return _rewrite(model, folder, _int8)


def _int8(tensors: dict[str, Tensor]) -> dict[str, Any]:
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        scale = tensors[name].float().abs().amax(dim=1, keepdim=True) / INT8_LARGEST
        codes = (tensors.pop(name) / scale).round()
        tensors[f"{name}_shape"], tensors[f"{name}_scale"] = torch.tensor(codes.shape), scale
        # Four to a word, the first in its lowest byte, counted from the lowest number.
        tensors[f"{name}_packed"] = (codes + INT8_LARGEST + 1).to(torch.uint8).view(torch.int32)
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    options = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed"}
    groups = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}
    return options | groups


def pack_mxfp4(weights: Tensor) -> Packed:
    """Round rows (..., row, column) to MXFP4: the largest of a block has the highest exponent, what is above it is cut.

    Columns are a multiple of 32.
    """
    blocks = weights.contiguous().unflatten(-1, (-1, MX_BLOCK))
    exponents = blocks.abs().amax(-1).clamp(min=2.0**-126).log2().floor() - E2M1_EXPONENT
    exponents = exponents.clamp(min=-E8M0_BIAS)
    sizes = blocks.abs() * torch.exp2(-exponents)[..., None]
    levels = torch.tensor(E2M1)
    lower = torch.bucketize(sizes, levels, right=True).sub(1).clamp(max=len(levels) - 1)
    upper = (lower + 1).clamp(max=len(levels) - 1)
    middle = (levels[lower] + levels[upper]) / 2
    # Halfway the even code is taken.
    codes = torch.where((sizes > middle) | ((sizes == middle) & (lower % 2 == 1)), upper, lower)
    codes = (codes + 8 * (blocks < 0)).to(torch.uint8)
    return Packed(codes[..., 0::2] | codes[..., 1::2] << 4, (exponents + E8M0_BIAS).to(torch.uint8))


def _rewrite(model: Path, folder: Path, pack: Callable[[dict[str, Tensor]], dict[str, Any]]) -> Path:
    """Write a model anew; `pack` changes its tensors in place and says what config.json is to say of them."""
    if (folder / "config.json").is_file():
        return folder
    tensors = load_file(model / "model.safetensors")
    quantisation = pack(tensors)
    shutil.copytree(model, folder, dirs_exist_ok=True)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
    config = read_json_object(folder / "config.json")
    write_json(folder / "config.json", config | {"quantization_config": quantisation})
    return folder
