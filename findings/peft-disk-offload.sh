#!/usr/bin/env bash
# Loading an adapter onto a base that is partly on disk rewrites the base's own weight file.
#
# One would guess:  `PeftModel.from_pretrained(base, adapter)` reads the base and never writes it.
# What happens:     with a layer of the base on disk (device_map, as "auto" chooses where memory is short), PEFT
#                   renames every key in the base's own `model.safetensors` to its wrapped name and adds the LoRA
#                   factors, in place. The folder cannot be read as the model it was: loaded again, all weights are
#                   missing and are drawn at random, with a report in the log and no error. (Folders inside the hub's
#                   cache are read under another path and were not tried.)
# Packages:         peft 0.21.2, accelerate 1.15.0, transformers 5.23.0, torch 2.13.0 (CPU); shown on a throw-away
#                   folder
# Where it matters: everybody who deploys an unlearning adapter on a local base with little memory loses the base.
#                   Merge the adapter elsewhere and deploy the merged folder, or make the base's files read-only.
# Run on 2026-11-28; output seen:
#   peft 0.21.2
#   sha256 of base/model.safetensors: 4f60f1575948, after loading the base 4f60f1575948, after PeftModel.from_pretrained 4280f32294c6
#   tensors 21 -> 25; first name lm_head.weight -> base_model.model.lm_head.weight
#   base loaded again: 21 of its 21 tensors missing and drawn at random
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 transformers==5.23.0 peft==0.21.2 accelerate==1.15.0

env/bin/python -W ignore - <<'EOF'
import hashlib
import sys
from pathlib import Path

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

FILE = Path("base/model.safetensors")
SIZES = dict(vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
PLACES = {
    "model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu",
    "model.rotary_emb": "cpu", "lm_head": "cpu",
}


def state():
    with safe_open(FILE, "pt") as tensors:
        names = sorted(tensors.keys())
    return hashlib.sha256(FILE.read_bytes()).hexdigest()[:12], names


torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(**SIZES))
model.save_pretrained("base")
get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained("adapter")
before, names_before = state()
base = AutoModelForCausalLM.from_pretrained("base", device_map=PLACES, offload_folder="off", dtype=torch.float32)
loaded, _ = state()
wrapped = {f"base_model.model.{name}": place for name, place in PLACES.items()}
PeftModel.from_pretrained(base, "adapter", device_map=wrapped, offload_folder="off")
after, names_after = state()
_, report = AutoModelForCausalLM.from_pretrained("base", output_loading_info=True)
missing = len(report["missing_keys"])
print(f"peft {peft.__version__}")
print(f"sha256 of {FILE}: {before}, after loading the base {loaded}, after PeftModel.from_pretrained {after}")
print(f"tensors {len(names_before)} -> {len(names_after)}; first name {names_before[0]} -> {names_after[0]}")
print(f"base loaded again: {missing} of its {len(names_before)} tensors missing and drawn at random")
if not (before == loaded != after and missing == len(names_before)):
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
