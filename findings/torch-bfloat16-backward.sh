#!/usr/bin/env bash
# On an x86 processor without AVX-512, torch multiplies bfloat16 seven times slower in one layout than in the other.
#
# One would guess:  bfloat16 without instructions for it is emulated: a few times slower than float32, alike in all
#                   layouts, as float32 is.
# What happens:     x @ w.T, the forward pass of a linear layer, takes about ten times as long as in float32; x @ w,
#                   which its backward pass multiplies the incoming gradient by, takes about fifty times as long, seven
#                   times the other. float16 is the same. So a forward pass, which is what one times, says little of a
#                   training step.
# Packages:         torch 2.13.0 (CPU)
# Where it matters: unlearning in the number format that most checkpoints are published in, on a processor of many
#                   servers and desktops. Weights in float32 are the way out.
# Run on 2026-12-01 (AMD EPYC with AVX2), one thread, 512 x 512; output seen:
#   torch 2.13.0
#   float32: x @ w 1.3 times x @ w.T
#   bfloat16: x @ w.T 9.6 times float32's, x @ w 51.8 times; x @ w 6.8 times x @ w.T
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0

env/bin/python -W ignore - <<'EOF'
import sys
import time

import torch

SIZE, REPEATS = 512, 5


def seconds(multiply):
    """The shortest time of the processor, after one call to warm up."""
    multiply()
    shortest = float("inf")
    for _ in range(REPEATS):
        begun = time.process_time()
        multiply()
        shortest = min(shortest, time.process_time() - begun)
    return shortest


torch.set_num_threads(1)
torch.manual_seed(0)
print("torch", torch.__version__.split("+")[0])
has = torch.cpu.get_capabilities()
if has["architecture"] != "x86_64" or has["avx512_f"]:
    print("nothing to see: this is no x86 processor without AVX-512")
    sys.exit()
x, w = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
full = seconds(lambda: x @ w.T), seconds(lambda: x @ w)
x, w = x.bfloat16(), w.bfloat16()
half = seconds(lambda: x @ w.T), seconds(lambda: x @ w)
print(f"float32: x @ w {full[1] / full[0]:.1f} times x @ w.T")
print(
    f"bfloat16: x @ w.T {half[0] / full[0]:.1f} times float32's, x @ w {half[1] / full[1]:.1f} times; "
    f"x @ w {half[1] / half[0]:.1f} times x @ w.T"
)
recorded = full[1] / full[0] < 2 and half[1] / half[0] > 3 and half[1] / full[1] > 15
print("as recorded" if recorded else "CHANGED")
sys.exit(not recorded)
EOF
