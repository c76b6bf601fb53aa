#!/usr/bin/env bash
# An adapter made on Llama 4 through AutoModelForCausalLM moves the class that config.json names by exactly nothing.
#
# One would guess:  `AutoModelForCausalLM.from_pretrained(folder)` gives the class in `config.json`, as it does for
#                   Gemma 3, or at least one whose adapters fit it.
# What happens:     on a multimodal Llama 4 folder it gives Llama4ForCausalLM, whose layers are called
#                   `model.layers.N`; the class named, Llama4ForConditionalGeneration, calls them
#                   `language_model.model.layers.N`. Both give the same logits on text. The adapter loads into the
#                   second with one general warning about missing keys, every factor stays at its start, and the
#                   logits do not move at all.
# Packages:         transformers 5.23.0, peft 0.21.2, torch 2.13.0 (CPU)
# Where it matters: unlearning in the one class, serving in the other: the report says forgotten, the deployed model
#                   is the target.
# Run on 2026-11-28; output seen:
#   transformers 5.23.0, peft 0.21.2
#   config.json names ['Llama4ForConditionalGeneration'] | auto class: Llama4ForCausalLM
#   logits of the two differ by 0
#   the adapter moves Llama4ForCausalLM by 0.56, the class named by 0.0
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2

env/bin/python -W ignore - <<'EOF'
import json
import sys

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Llama4Config, Llama4ForConditionalGeneration

TEXT = dict(
    vocab_size=64, hidden_size=32, intermediate_size=64, intermediate_size_mlp=64, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_local_experts=2, pad_token_id=0,
)
VISION = dict(
    hidden_size=32, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16,
    vision_output_dim=32, projector_input_dim=32, projector_output_dim=32,
)


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=torch.arange(1, 13)[None]).logits


def first_layer(model):
    return next(name for name, _ in model.named_parameters() if name.endswith("layers.0.self_attn.q_proj.weight"))


torch.manual_seed(0)
Llama4ForConditionalGeneration(Llama4Config(text_config=TEXT, vision_config=VISION)).save_pretrained("base")
causal = AutoModelForCausalLM.from_pretrained("base")
named = Llama4ForConditionalGeneration.from_pretrained("base")
base = logits(named)
print(f"transformers {transformers.__version__}, peft {peft.__version__}")
print("config.json names", json.load(open("base/config.json"))["architectures"], "| auto class:", type(causal).__name__)
print(f"logits of the two differ by {float((logits(causal) - base).abs().max()):.1g}")

tuned = get_peft_model(causal, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
for name, parameter in tuned.named_parameters():
    if "lora_B" in name:
        parameter.data.normal_()
tuned.save_pretrained("adapter")
moved_causal = float((logits(tuned) - base).abs().max())
moved_named = float((logits(PeftModel.from_pretrained(named, "adapter")) - base).abs().max())
print(f"the adapter moves {type(causal).__name__} by {moved_causal:.2f}, the class named by {moved_named}")
if not (type(causal).__name__ == "Llama4ForCausalLM" and moved_causal > 0.1 and moved_named == 0.0):
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
