#!/usr/bin/env bash
# On a CPU, log_softmax and cross_entropy in float32 make the loss of a nearly certain token up to an eighth too small,
# and by how much depends on the processor.
#
# One would guess:  log_softmax is the accurate way: within a few roundings of the same in float64, and at least as
#                   good as logits minus logsumexp.
# What happens:     it adds the exponentials up in as many partial sums as the processor's vectors have lanes. In the
#                   lane that holds the most likely token, every other one below 6e-8 of it is lost to rounding. Where
#                   a token is nearly certain and the rest of a large vocabulary shares what is left, a sixteenth
#                   (AVX-512) or an eighth (AVX2) of its loss is missing; cross_entropy inherits it. logsumexp adds up
#                   pairwise and is right to a few millionths of a nat.
# Packages:         torch 2.13.0 (CPU)
# Where it matters: what a model has learnt by heart has just such tokens: losses, memorisation and membership scores of
#                   the same model differ by several percent between two machines. On SmolLM2's vocabulary, log-
#                   probabilities of single tokens were off by 1.3e-4 nats. Subtract logsumexp, or compute in float64.
# Run on 2026-11-29; output seen:
#   torch 2.13.0+cpu
#   AVX512: loss 2.033e-03, cross_entropy -6.2%, log_softmax -6.2%, logsumexp +0.0%
#   AVX2: loss 2.033e-03, cross_entropy -12.5%, log_softmax -12.5%, logsumexp +0.0%
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 numpy==2.4.6

cat > show.py <<'EOF'
import math
import sys

import torch

VOCABULARY, OTHERS = 49152, -17.0
logits = torch.full((1, VOCABULARY), OTHERS)
logits[0, 7] = 0.0
loss = math.log1p((VOCABULARY - 1) * math.exp(OTHERS))
found = {
    "cross_entropy": torch.nn.functional.cross_entropy(logits, torch.tensor([7])),
    "log_softmax": -logits.log_softmax(-1)[0, 7],
    "logsumexp": logits.logsumexp(-1)[0] - logits[0, 7],
}
off = {name: float(value) / loss - 1 for name, value in found.items()}
print(f"{torch.backends.cpu.get_cpu_capability()}: loss {loss:.3e}, " + ", ".join(f"{k} {v:+.1%}" for k, v in off.items()))
if abs(off["logsumexp"]) > 1e-3 or not all(0.05 < -off[name] < 0.2 for name in ("cross_entropy", "log_softmax")):
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
EOF

env/bin/python -c 'import torch; print("torch", torch.__version__)'
env/bin/python show.py
# The narrower vectors of another processor, on this one.
ATEN_CPU_CAPABILITY=avx2 env/bin/python show.py
echo "as recorded"
