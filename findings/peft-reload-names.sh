#!/usr/bin/env bash
# PEFT loads an adapter of Laguna without the factors of its shared experts, which the file holds.
#
# One would guess:  an adapter on named linear layers that PEFT has saved is the same adapter when PEFT loads it.
# What happens:     on loading, PEFT renames the keys as transformers renames those of old checkpoints. Laguna's pattern
#                   "mlp.shared_expert." is a regular expression: its last dot is also the s of "mlp.shared_experts", so
#                   the new name becomes "mlp.shared_experts..gate_proj" and belongs to no layer. The file is whole;
#                   loaded, the shared experts have B = 0. A UserWarning lists the keys; nothing is raised. The
#                   attention of the same adapter arrives.
# Packages:         peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU)
# Where it matters: unlearning in the shared experts, which every token passes. The adapter that was measured forgets;
#                   the one that is deployed is the target there, while its file looks complete.
# Run on 2026-11-29; output seen:
#   peft 0.21.2, transformers 5.23.0
#   laguna: 7 layers saved, 4 loaded; lost: down_proj, gate_proj, up_proj of mlp.shared_experts
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2

env/bin/python -W ignore - <<'EOF'
import sys

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LagunaConfig

CONFIG = dict(
    vocab_size=64, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, shared_expert_intermediate_size=16,
    num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
    num_experts=4, num_experts_per_tok=2, mlp_layer_types=["sparse"], layer_types=["full_attention"],
)


def base():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LagunaConfig(**CONFIG))


def filled(model):
    """Layers whose B is not zero."""
    return {
        name.removesuffix(".lora_B.default.weight").removeprefix("base_model.model.model.layers.0.")
        for name, value in model.named_parameters() if ".lora_B." in name and value.any()
    }


names = [
    name for name, module in base().named_modules()
    if isinstance(module, torch.nn.Linear) and name.endswith(("q_proj", "k_proj", "v_proj", "o_proj"))
    or ".shared_experts." in name and isinstance(module, torch.nn.Linear)
]
tuned = get_peft_model(base(), LoraConfig(r=4, target_modules=names))
for name, value in tuned.named_parameters():
    if ".lora_B." in name:
        torch.nn.init.normal_(value)  # In place of training.
tuned.save_pretrained("adapter", save_embedding_layers=False)
loaded = PeftModel.from_pretrained(base(), "adapter")
saved, kept = filled(tuned), filled(loaded)
lost = sorted(saved - kept)
print(f"peft {peft.__version__}, transformers {transformers.__version__}")
last = ", ".join(name.rpartition(".")[2] for name in lost)
print(f"laguna: {len(saved)} layers saved, {len(kept)} loaded; lost: {last} of {lost[0].rpartition('.')[0] if lost else '-'}")
right = len(saved) == 7 and {name.rpartition(".")[0] for name in lost} == {"mlp.shared_experts"} and len(kept) == 4
print("as recorded" if right else "CHANGED")
sys.exit(not right)
EOF
