#!/usr/bin/env bash
# A model that went through transformers' Trainer is saved with its cache switched off.
#
# One would guess:  training leaves `config.json` as it was.
# What happens:     `TrainingArguments.use_cache` is False by default and is written into the model's config when
#                   training starts; `save_model` saves it. Loaded again, `model(...)` returns no `past_key_values`;
#                   `generate` has its own setting and is not touched, so nobody notices there.
# Packages:         transformers 5.23.0, accelerate 1.15.0, torch 2.13.0 (CPU)
# Where it matters: decoding loops and scorers of one's own on a fine-tuned target (attacks that sample, many answers
#                   behind one prompt): they fail on None, or read the whole prompt again for every token.
# Run on 2026-11-28; output seen:
#   transformers 5.23.0
#   before training: use_cache True in config.json, past_key_values DynamicCache
#   after training: use_cache False in config.json, past_key_values NoneType
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 transformers==5.23.0 accelerate==1.15.0

env/bin/python -W ignore - <<'EOF'
import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

IDS = list(range(1, 9))
torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
)
model.save_pretrained("before")
arguments = TrainingArguments("out", max_steps=1, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True)
trainer = Trainer(model, arguments, train_dataset=[{"input_ids": IDS, "labels": IDS}] * 4)
trainer.train()
trainer.save_model("after")
print(f"transformers {transformers.__version__}")
seen = {}
for folder in ("before", "after"):
    written = json.loads(Path(folder, "config.json").read_text())["use_cache"]
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    cache = loaded(input_ids=torch.tensor([IDS])).past_key_values
    seen[folder] = (written, cache is not None)
    print(f"{folder} training: use_cache {written} in config.json, past_key_values {type(cache).__name__}")
if seen != {"before": (True, True), "after": (False, False)}:
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
