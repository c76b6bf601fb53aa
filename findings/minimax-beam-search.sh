#!/usr/bin/env bash
# Beam search on MiniMax returns a sequence that the model finds 50 nats less probable than it claims.
#
# One would guess:  `generate(num_beams=4)` gives the same sequence with the cache and without it, and the score
#                   returned is the sum of the sequence's log-probabilities.
# What happens:     MiniMax's linear-attention layers keep their memory in a list beside the cache's layers, and
#                   `reorder_cache` is the inherited one, which knows the layers alone. When beams change places, keys
#                   and values move and the linear memory stays. Greedy decoding is right; without the cache beam
#                   search is right; nothing is said.
# Packages:         transformers 5.23.0, torch 2.13.0 (CPU)
# Where it matters: whatever reorders cached rows: scoring several answers behind one cached prompt (multiple choice,
#                   truth ratios), and generation by beams. The numbers are of no model.
# Run on 2026-11-28; output seen:
#   transformers 5.23.0
#   llama, with cache: -8.5 claimed -8.5 true, -11.4 claimed -11.4 true, -8.6 claimed -8.6 true
#   llama, without cache: -8.5 claimed -8.5 true, -11.4 claimed -11.4 true, -8.6 claimed -8.6 true
#   minimax, with cache: -11.5 claimed -63.3 true, -12.1 claimed -40.9 true, -12.8 claimed -54.4 true
#   minimax, without cache: -11.3 claimed -11.3 true, -12.2 claimed -12.2 true, -11.6 claimed -11.6 true
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet torch==2.13.0 transformers==5.23.0

env/bin/python -W ignore - <<'EOF'
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, MiniMaxConfig

SIZES = dict(
    vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, initializer_range=0.3,
)
KINDS = {
    "llama": LlamaConfig(**SIZES),
    "minimax": MiniMaxConfig(**SIZES, num_local_experts=2, layer_types=["linear_attention"] * 3 + ["full_attention"]),
}
PROMPT, NEW = 6, 12


@torch.no_grad()
def claimed_and_true(config, cached, seed):
    """Summed log-probability of the best of four beams: as `generate` says, and by one pass over the sequence."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    prompt = torch.randint(1, 64, (1, PROMPT))
    found = model.generate(
        prompt, num_beams=4, do_sample=False, max_new_tokens=NEW, use_cache=cached, pad_token_id=0, eos_token_id=None,
        output_scores=True, return_dict_in_generate=True,
    )
    words = found.sequences
    log_probs = model(input_ids=words).logits.log_softmax(-1)[0, PROMPT - 1 : -1]
    return float(found.sequences_scores[0]) * NEW, float(log_probs.gather(-1, words[0, PROMPT:, None]).sum())


print(f"transformers {transformers.__version__}")
off = {}
for kind, config in KINDS.items():
    for cached in (True, False):
        pairs = [claimed_and_true(config, cached, seed) for seed in range(3)]
        off[kind, cached] = max(abs(claimed - true) for claimed, true in pairs)
        shown = ", ".join(f"{claimed:.1f} claimed {true:.1f} true" for claimed, true in pairs)
        print(f"{kind}, {'with' if cached else 'without'} cache: {shown}")
right = max(off["llama", True], off["llama", False], off["minimax", False])
if not (off["minimax", True] > 10 and right < 0.1):
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
