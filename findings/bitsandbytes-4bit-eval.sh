#!/usr/bin/env bash
# A 4-bit layer on a CPU computes in another number format in evaluation than in training, whatever its compute dtype.
#
# One would guess:  `bnb_4bit_compute_dtype=torch.float32` means that products are float32; without dropout, `eval()`
#                   changes nothing.
# What happens:     in training mode the output is that of the de-quantised weight in float32, to the bit. In
#                   evaluation mode without gradients, on a processor with AVX512-BF16, the first call packs the weight
#                   for a bfloat16 kernel: the output has dtype float32 and bfloat16's error (0.3 % of a layer's output).
#                   On other processors both are exact.
# Packages:         bitsandbytes 0.50.2, torch 2.13.0 (CPU)
# Where it matters: who measures a QLoRA model before and after with `eval()` and compares with losses seen in
#                   training, or checks a merge of the de-quantised weights at float32 tolerance, finds a difference on
#                   one machine and none on the next.
# Run on 2026-11-29; output seen:
#   bitsandbytes 0.50.2, torch 2.13.0; AVX512-BF16: True
#   training: float32, 0.0e+00 from the de-quantised weight
#   evaluation: float32, 3.0e-03 from the de-quantised weight
#   evaluation, input in bfloat16 by hand: 2.9e-03 from that
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 bitsandbytes==0.50.2

cat > look.py <<'EOP'
import sys

import bitsandbytes
import torch
from bitsandbytes.functional import dequantize_4bit

fast = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
print(f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__.split('+')[0]}; AVX512-BF16: {fast}")
torch.manual_seed(0)
layer = bitsandbytes.nn.Linear4bit(256, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
layer.weight = bitsandbytes.nn.Params4bit(torch.randn(64, 256), requires_grad=False, quant_type="nf4")
layer = layer.to("cpu")
given = torch.randn(5, 256)
weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
expected = given @ weight.T
by_hand = (given.bfloat16() @ weight.bfloat16().T).float()
off = {}
with torch.no_grad():
    for mode in ("training", "evaluation"):
        found = layer.train(mode == "training")(given)
        off[mode] = float((found - expected).norm() / expected.norm())
        print(f"{mode}: {str(found.dtype).removeprefix('torch.')}, {off[mode]:.1e} from the de-quantised weight")
print(f"evaluation, input in bfloat16 by hand: {float((found - by_hand).norm() / by_hand.norm()):.1e} from that")
held = off["training"] < 1e-6 and (1e-3 < off["evaluation"] < 1e-2 if fast else off["evaluation"] < 1e-6)
print("as recorded" if held else "CHANGED")
sys.exit(not held)
EOP
env/bin/python look.py
