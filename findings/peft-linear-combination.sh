#!/usr/bin/env bash
# The "linear" combination of two LoRA adapters is not the sum of their updates.
#
# One would guess:  `add_weighted_adapter(["a", "b"], [1.0, 1.0], "c", combination_type="linear")` adds the two
#                   updates.
# What happens:     it adds the factors: (A1 + A2) and (B1 + B2), whose product has the cross terms B1 A2 and B2 A1 as
#                   well. For two unrelated adapters these are as large as the sum itself. "cat" and "svd" (with the
#                   rank of both together) are the sum. The same weight twice shows it: 0.5 and 0.5 of one adapter
#                   give it back, of two adapters half of each and half of their cross terms.
# Packages:         peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU)
# Where it matters: forget requests that were unlearned one by one and are put together afterwards. Use "cat".
# Run on 2026-11-28; output seen:
#   peft 0.21.2
#   linear: off by 100.7% of the sum of the two updates
#   cat: off by 0.0% of the sum of the two updates
#   svd: off by 0.0% of the sum of the two updates
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 transformers==5.23.0 peft==0.21.2

env/bin/python -W ignore - <<'EOF'
import sys

import peft
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = dict(vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
LORA = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])

torch.manual_seed(0)
tuned = get_peft_model(LlamaForCausalLM(LlamaConfig(**SIZES)), LORA, adapter_name="a")
tuned.add_adapter("b", LORA)
for name, parameter in tuned.named_parameters():
    if "lora_B" in name:
        parameter.data = 0.1 * torch.randn_like(parameter)
layers = [module for module in tuned.modules() if hasattr(module, "get_delta_weight")]


@torch.no_grad()
def off(kind, **options):
    """Norm of the difference from the sum of the updates, over the norm of the sum; the largest over the layers."""
    tuned.add_weighted_adapter(["a", "b"], [1.0, 1.0], kind, combination_type=kind, **options)
    differences = []
    for layer in layers:
        total = layer.get_delta_weight("a") + layer.get_delta_weight("b")
        differences.append(float((layer.get_delta_weight(kind) - total).norm() / total.norm()))
    return max(differences)


print(f"peft {peft.__version__}")
found = {"linear": off("linear"), "cat": off("cat"), "svd": off("svd", svd_rank=16)}
for kind, share in found.items():
    print(f"{kind}: off by {share:.1%} of the sum of the two updates")
if not (found["linear"] > 0.5 and max(found["cat"], found["svd"]) < 1e-4):
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
