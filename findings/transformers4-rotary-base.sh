#!/usr/bin/env bash
# A folder that transformers 5 wrote is another model to transformers 4.57: its rotary base is 10000.
#
# One would guess:  a `config.json` that loads without a word in the release before means the same model there.
# What happens:     transformers 5 writes the rotary base in `rope_parameters` alone. transformers 4.57 keeps that key
#                   as an unknown attribute, finds no `rope_theta` and takes Llama's default of 10000. No error, no
#                   warning. With `rope_theta` written at the top of the file as well, 4.57 gives the same logits as
#                   5.23.
# Packages:         transformers 5.23.0 and 4.57.6, torch 2.13.0 (CPU)
# Where it matters: an unlearned model that was merged and saved, and is then served, quantised or exported with a
#                   tool that asks for transformers < 5. What was measured is not what runs; nearly every Llama-like
#                   model since 2024 has another base than 10000.
# Run on 2026-11-28; output seen:
#   transformers 5.23.0, as saved: log-probabilities off by 0.00 at most
#   rope_theta in config.json: None | rope_parameters: {'rope_theta': 100000.0, 'rope_type': 'default'}
#   transformers 4.57.6, as saved: log-probabilities off by 7.36 at most
#   transformers 4.57.6, with rope_theta at the top as well: log-probabilities off by 0.00 at most
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1

for version in 5.23.0 4.57.6; do
    "${PYTHON:-python3}" -m venv "env-$version"
    "env-$version/bin/pip" install --quiet --no-compile torch==2.13.0 "transformers==$version"
done

cat > logits.py <<'EOF'
import torch
import transformers
from transformers import AutoModelForCausalLM


@torch.no_grad()
def log_probs(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model(input_ids=torch.arange(1, 65)[None]).logits.log_softmax(-1)


def say(folder, seen, note):
    print(f"transformers {transformers.__version__}, {note}: log-probabilities off by {seen:.2f} at most")
EOF

cat > write.py <<'EOF'
import json
import shutil
from pathlib import Path

import torch
from logits import log_probs, say
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    initializer_range=0.2, rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
)
LlamaForCausalLM(config).save_pretrained("plain")
torch.save(log_probs("plain"), "expected.pt")
say("plain", 0.0, "as saved")
shutil.copytree("plain", "both")
written = json.loads(Path("plain/config.json").read_text())
print("rope_theta in config.json:", written.get("rope_theta"), "| rope_parameters:", written["rope_parameters"])
written["rope_theta"] = written["rope_parameters"]["rope_theta"]
Path("both/config.json").write_text(json.dumps(written))
EOF

cat > read.py <<'EOF'
import sys

import torch
from logits import log_probs, say

expected = torch.load("expected.pt")
off = {folder: float((log_probs(folder) - expected).abs().max()) for folder in ("plain", "both")}
say("plain", off["plain"], "as saved")
say("both", off["both"], "with rope_theta at the top as well")
if not (off["plain"] > 1 and off["both"] < 1e-3):
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF

env-5.23.0/bin/python write.py
env-4.57.6/bin/python read.py
