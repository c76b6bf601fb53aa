#!/usr/bin/env bash
# An FP8 checkpoint loaded on a CPU with dtype=float32 is half float32, half bfloat16, and cannot run.
#
# One would guess:  `from_pretrained(folder, dtype=torch.float32)` gives float32 weights; transformers says that it
#                   de-quantises FP8 where there is no GPU.
# What happens:     the linear layers, which were FP8, become float32; embedding, head and norms stay bfloat16, as
#                   they are in the file. `model.dtype` says bfloat16. The first forward pass raises a RuntimeError
#                   about two dtypes. With dtype=bfloat16, or "auto", all is bfloat16 and runs.
# Packages:         transformers 5.23.0, accelerate 1.15.0, torch 2.13.0 (CPU)
# Where it matters: measuring in float32, as one does on a CPU for numbers that do not depend on the batch, on the FP8
#                   files that several families are published in. `model.to(torch.float32)` after loading mends it.
# Run on 2026-11-28; output seen:
#   transformers 5.23.0
#   dtype=torch.float32: tensors {'bfloat16': 7, 'float32': 14}, model.dtype torch.bfloat16: RuntimeError: expected m1 and m2 to have the same dtype, but got: c10::BFloat16 != float
#   dtype=torch.bfloat16: tensors {'bfloat16': 21}, model.dtype torch.bfloat16: runs
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1 CUDA_VISIBLE_DEVICES=""

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 transformers==5.23.0 accelerate==1.15.0

env/bin/python -W ignore - <<'EOF'
import json
import sys
from collections import Counter
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

BLOCK = 128


def in_blocks(weight):
    """FP8 values (out, in) and one scale for each block of 128 x 128, as FP8 checkpoints hold them."""
    rows, columns = weight.shape
    blocks = weight.float().reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    scale = blocks.abs().amax((1, 3), keepdim=True) / torch.finfo(torch.float8_e4m3fn).max
    return (blocks / scale).reshape(rows, columns).to(torch.float8_e4m3fn), scale[:, 0, :, 0].contiguous()


torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=128, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
    architectures=["LlamaForCausalLM"], dtype="bfloat16",
)
tensors = {}
for name, weight in LlamaForCausalLM(config).bfloat16().state_dict().items():
    if name.endswith("proj.weight"):
        tensors[name], tensors[f"{name}_scale_inv"] = in_blocks(weight)
    else:
        tensors[name] = weight
Path("fp8").mkdir()
save_file(tensors, "fp8/model.safetensors", metadata={"format": "pt"})
fp8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}
Path("fp8/config.json").write_text(json.dumps(config.to_dict() | {"quantization_config": fp8}, default=str))

print(f"transformers {transformers.__version__}")
seen = {}
for dtype in (torch.float32, torch.bfloat16):
    model = AutoModelForCausalLM.from_pretrained("fp8", dtype=dtype)
    counts = Counter(str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters())
    try:
        model(input_ids=torch.arange(8)[None])
        outcome = "runs"
    except RuntimeError as error:
        outcome = f"RuntimeError: {error}"
    seen[dtype] = (len(counts), outcome == "runs")
    print(f"dtype={dtype}: tensors {dict(counts)}, model.dtype {model.dtype}: {outcome}")
if seen != {torch.float32: (2, False), torch.bfloat16: (1, True)}:
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
