#!/usr/bin/env bash
# PEFT gives the routed experts the adapter that was asked for on the dense layers and the shared experts.
#
# One would guess:  `LoraConfig(target_modules=[full names of nn.Linear layers])` adapts those layers and no others.
# What happens:     on a mixture whose experts are held in fused tensors (GLM-4-MoE here; Ernie 4.5 MoE the same), the
#                   words gate_proj, up_proj and down_proj are rewritten to `target_parameters`, also inside full
#                   names. None of the six layers named gets an adapter; the fused tensors of all routed experts do,
#                   gate_up_proj with twice the rank. Nothing is raised; the warnings speak of patterns "ignored" that
#                   were applied. On Qwen2-MoE the same six names are adapted as they stand.
# Packages:         peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU)
# Where it matters: unlearning in chosen layers. The adapter changes weights that nobody measured or chose, the layers
#                   that were chosen stay as they are, and a count of target modules in a log says nothing of it.
# Run on 2026-11-28; output seen:
#   peft 0.21.2, transformers 5.23.0
#   glm4_moe: 0 of the 6 layers named are adapted; adapted: 2
#     model.layers.1.mlp.experts.base_layer: lora_A (32, 32)
#     model.layers.1.mlp.experts: lora_A (16, 16)
#   qwen2_moe: 6 of the 6 layers named are adapted; adapted: 6
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
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Glm4MoeConfig, Qwen2MoeConfig

SIZES = dict(
    vocab_size=64, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64, num_experts_per_tok=2,
)
KINDS = {
    "glm4_moe": Glm4MoeConfig(**SIZES, n_routed_experts=4, n_shared_experts=1, first_k_dense_replace=1),
    "qwen2_moe": Qwen2MoeConfig(**SIZES, num_experts=4, shared_expert_intermediate_size=16, mlp_only_layers=[0]),
}


def wanted_and_adapted(config):
    model = AutoModelForCausalLM.from_config(config)
    wanted = [
        name for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith(("gate_proj", "up_proj", "down_proj"))
    ]
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=wanted))
    factors = {name: tuple(p.shape) for name, p in tuned.named_parameters() if name.endswith("lora_A.default.weight")}
    prefix, suffix = len("base_model.model."), -len(".lora_A.default.weight")
    return set(wanted), {name[prefix:suffix]: shape for name, shape in factors.items()}


print(f"peft {peft.__version__}, transformers {transformers.__version__}")
hit = {}
for kind, config in KINDS.items():
    wanted, adapted = wanted_and_adapted(config)
    hit[kind] = len(wanted & set(adapted))
    print(f"{kind}: {hit[kind]} of the {len(wanted)} layers named are adapted; adapted: {len(adapted)}")
    if not hit[kind]:
        for name, shape in adapted.items():
            print(f"  {name}: lora_A {shape}")
if hit != {"glm4_moe": 0, "qwen2_moe": 6}:
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
