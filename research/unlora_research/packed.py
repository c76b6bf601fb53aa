"""Write a model's files in the formats of others: float8 codes with scales (FP8, MXFP8), 4-bit ones (MXFP4), integers.

No library writes the first three on a CPU; transformers reads them there, as ordinary numbers. Integers of 8 bits with
a scale a row and of 4 bits with one for every 32 of it are as llm-compressor writes them, which transformers reads by
compressed-tensors; those of torchao are written by torchao, by way of transformers.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, TorchAoConfig

from unlora.artifacts import read_json_object, write_json
from unlora.models.quiet import quiet

FP8_BLOCK, FP8_LARGEST = 32, 448.0
"""Side of the square that has one scale, and the largest number of float8 e4m3."""
INT4_GROUP = 32
"""Weights of a row that share a scale."""
MX_BLOCK = 32
"""Weights that share a scale, along a row: the input's side (OCP Microscaling Formats 1.0, section 5.2)."""
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What the lower three bits of a code stand for; the fourth is the sign."""
E2M1_EXPONENT, E4M3_EXPONENT, E8M0_BIAS = 2, 8, 127
"""Exponents of the largest codes, and of the scales, which are powers of two."""


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


def write_mxfp8(model: Path, folder: Path) -> Path:
    """Write a model's projections as float8 codes with a power of two for every 32 of a row.

    Where it is there already, nothing is done.
    """
    return _rewrite(model, folder, _mxfp8)


def _mxfp8(tensors: dict[str, Tensor]) -> dict[str, Any]:
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        blocks = tensors[name].float().unflatten(1, (-1, MX_BLOCK))
        exponents = _mx_exponents(blocks, E4M3_EXPONENT)
        codes = (blocks * torch.exp2(-exponents)[..., None]).clamp(-FP8_LARGEST, FP8_LARGEST)
        tensors[name] = codes.flatten(1).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = (exponents + E8M0_BIAS).to(torch.uint8)
    return {"quant_method": "mxfp8", "activation_scheme": "dynamic", "weight_block_size": [1, MX_BLOCK], "fmt": "e4m3"}


def write_int8(model: Path, folder: Path) -> Path:
    """Write a model's projections as 8-bit integers with a scale for every row, in the format compressed-tensors.

    Where it is there already, nothing is done.
    """
    return _rewrite(model, folder, lambda tensors: _integers(tensors, bits=8, group=None))


def write_int4(model: Path, folder: Path) -> Path:
    """Write them as 4-bit integers with a scale for every 32 of a row, in the same format.

    Where it is there already, nothing is done.
    """
    return _rewrite(model, folder, lambda tensors: _integers(tensors, bits=4, group=INT4_GROUP))


def _integers(tensors: dict[str, Tensor], *, bits: int, group: int | None) -> dict[str, Any]:
    """Pack them into words; `group` numbers of a row share a scale, None: all of it."""
    largest = 2 ** (bits - 1) - 1
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        weight = tensors.pop(name).float()
        groups = weight.unflatten(1, (-1, group or weight.shape[1]))
        scale = groups.abs().amax(dim=2) / largest
        codes = (groups / scale[..., None]).round().flatten(1)
        tensors[f"{name}_shape"], tensors[f"{name}_scale"] = torch.tensor(codes.shape), scale
        # As many to a word as it has places, the first in the lowest, counted from the lowest number.
        counted = (codes + largest + 1).to(torch.uint8)
        packed = counted if bits == 8 else counted[:, 0::2] | counted[:, 1::2] << 4
        tensors[f"{name}_packed"] = packed.contiguous().view(torch.int32)
    strategy = {"strategy": "channel"} if group is None else {"strategy": "group", "group_size": group}
    weights = {"num_bits": bits, "type": "int", "symmetric": True, **strategy}
    options = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed"}
    groups = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}
    return options | groups


def write_torchao(model: Path, folder: Path) -> Path:
    """Let torchao, which must be installed, write a model's linear layers as 8-bit integers with a scale for every row.

    Where it is there already, nothing is done.
    """
    if (folder / "config.json").is_file():
        return folder
    from torchao.quantization import Int8WeightOnlyConfig  # pyright: ignore[reportMissingImports]  no package of ours

    shutil.copytree(model, folder, dirs_exist_ok=True)
    with quiet():
        rounded = AutoModelForCausalLM.from_pretrained(
            model, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()), dtype=torch.float32
        )
        rounded.save_pretrained(folder)
    return folder


def pack_mxfp4(weights: Tensor) -> Packed:
    """Round rows (..., row, column) to MXFP4: the largest of a block has the highest exponent, what is above it is cut.

    Columns are a multiple of 32.
    """
    blocks = weights.contiguous().unflatten(-1, (-1, MX_BLOCK))
    exponents = _mx_exponents(blocks, E2M1_EXPONENT)
    sizes = blocks.abs() * torch.exp2(-exponents)[..., None]
    levels = torch.tensor(E2M1)
    lower = torch.bucketize(sizes, levels, right=True).sub(1).clamp(max=len(levels) - 1)
    upper = (lower + 1).clamp(max=len(levels) - 1)
    middle = (levels[lower] + levels[upper]) / 2
    # Halfway the even code is taken.
    codes = torch.where((sizes > middle) | ((sizes == middle) & (lower % 2 == 1)), upper, lower)
    codes = (codes + 8 * (blocks < 0)).to(torch.uint8)
    return Packed(codes[..., 0::2] | codes[..., 1::2] << 4, (exponents + E8M0_BIAS).to(torch.uint8))


def _mx_exponents(blocks: Tensor, largest: int) -> Tensor:
    """Of the scale of each block (..., block, 32), so that its largest number has the exponent of the largest code."""
    exponents = blocks.abs().amax(-1).clamp(min=2.0**-126).log2().floor() - largest
    return exponents.clamp(min=-E8M0_BIAS)


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
