#!/usr/bin/env bash
# Forget quality of three questions passes every test, whatever the model.
#
# One would guess:  a two-sample Kolmogorov-Smirnov test of two samples that do not overlap at all gives a p-value
#                   near zero.
# What happens:     the exact p-value of the largest distance there is, D = 1, is 2 / C(2n, n): with n questions on
#                   each side it cannot fall below 1 (n = 1), 0.33, 0.10, 0.029 (n = 4). Up to n = 3 nothing can be
#                   rejected at 0.05. scipy computes this rightly and warns of nothing. With the 40 questions of
#                   TOFU's smallest split the two samples have to be 13 questions apart before p falls below 0.05.
# Packages:         scipy 1.17.1
# Where it matters: "forget quality" in TOFU's sense is this p-value, and high is good. On a handful of questions an
#                   untouched model gets a full mark.
# Run on 2026-11-28; output seen:
#   scipy 1.17.1
#   n = 1, samples wholly apart: p = 1
#   n = 2, samples wholly apart: p = 0.333
#   n = 3, samples wholly apart: p = 0.1
#   n = 4, samples wholly apart: p = 0.0286
#   n = 5, samples wholly apart: p = 0.00794
#   n = 6, samples wholly apart: p = 0.00216
#   n = 7, samples wholly apart: p = 0.000583
#   n = 40, 12 places apart: p = 0.054
#   n = 40, 13 places apart: p = 0.029
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet scipy==1.17.1

env/bin/python - <<'EOF'
import math
import sys

import numpy as np
import scipy
from scipy.stats import ks_2samp

print(f"scipy {scipy.__version__}")
changed = False
for n in range(1, 8):
    apart = ks_2samp(np.arange(n), np.arange(n) + 1000).pvalue
    print(f"n = {n}, samples wholly apart: p = {apart:.3g}")
    changed |= not math.isclose(apart, min(1.0, 2 / math.comb(2 * n, n)), rel_tol=1e-6)
for shift in (12, 13):
    p = ks_2samp(np.arange(40), np.arange(40) + shift).pvalue
    print(f"n = 40, {shift} places apart: p = {p:.3f}")
    changed |= (p < 0.05) != (shift == 13)
if changed:
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
