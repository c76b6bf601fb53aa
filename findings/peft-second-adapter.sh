#!/usr/bin/env bash
# A second adapter put onto a PeftModel wipes out the first where the two overlap.
#
# One would guess:  `get_peft_model(peft_model, config)` adds an untrained adapter, which changes nothing yet (its B
#                   is zero), and `PeftModel.from_pretrained(peft_model, folder)` puts the second adapter on top of
#                   the first.
# What happens:     both adapters are called "default". Where they target the same layers the second takes the first
#                   one's place, so a fresh adapter gives the bare base back there; the loaded one finds no keys of
#                   its name and stays at its start, so the outcome is the base again, neither adapter. There are
#                   general warnings ("second time", "multiple adapters"), no error. Merging the first before the
#                   second is exact.
# Packages:         peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU)
# Where it matters: an unlearning adapter whose target is itself base + adapter, loaded by the two usual lines;
#                   further fine-tuning with a fresh adapter on top of an unlearning one. The forgotten comes back, or
#                   the target's own training goes.
# Run on 2026-11-28; output seen:
#   peft 0.21.2
#   first adapter, then a fresh one by get_peft_model: 0% of the first adapter's effect is left
#   first adapter, then the second by from_pretrained: moved 0% as far from the base as both should
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 transformers==5.23.0 peft==0.21.2

env/bin/python -W ignore - <<'EOF'
import sys

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

LORA = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])
SIZES = dict(vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=torch.arange(1, 65)[None]).logits


def save_adapter(folder, seed):
    torch.manual_seed(seed)
    tuned = get_peft_model(base(), LORA)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    tuned.save_pretrained(folder)


save_adapter("first", 1)
save_adapter("second", 2)
bare = logits(base())
first = logits(PeftModel.from_pretrained(base(), "first"))
merged = PeftModel.from_pretrained(base(), "first").merge_and_unload()
both = logits(PeftModel.from_pretrained(merged, "second"))


def left(model, of):
    """How far the model is from the bare base, over how far it should be."""
    return float((logits(model) - bare).norm() / (of - bare).norm())


fresh = left(get_peft_model(PeftModel.from_pretrained(base(), "first"), LORA), first)
stacked = PeftModel.from_pretrained(PeftModel.from_pretrained(base(), "first"), "second")
loaded = left(stacked, both)
print(f"peft {peft.__version__}")
print(f"first adapter, then a fresh one by get_peft_model: {fresh:.0%} of the first adapter's effect is left")
print(f"first adapter, then the second by from_pretrained: moved {loaded:.0%} as far from the base as both should")
if not (fresh == 0.0 and loaded == 0.0):
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
