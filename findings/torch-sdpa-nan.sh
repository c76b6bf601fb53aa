#!/usr/bin/env bash
# On a CPU, torch's attention answers a query that is NaN with zeros: a model with a broken weight has finite logits.
#
# One would guess:  NaN spreads. A model with a NaN in its weights gives NaN logits, so a finite loss means finite
#                   weights.
# What happens:     `scaled_dot_product_attention` without a mask, or with `is_causal=True`, gives 0 for a row whose
#                   scores are all NaN. One NaN in `q_proj.weight` (or in `k_proj.weight`) therefore silences a head and
#                   nothing else; the logits are finite and another model's. With a mask as a tensor, and in eager
#                   attention, they are NaN, as is the gradient in every case: whether it is seen depends on whether
#                   the batch had padding. float32 and bfloat16 alike.
# Packages:         torch 2.13.0 (CPU), transformers 5.23.0
# Where it matters: who unlearns compares losses before and after. A checkpoint that overflowed in training, or an
#                   adapter merged with a NaN in it, is evaluated as a model that forgot a good deal. Look at the
#                   weights themselves, not at the loss.
# Run on 2026-11-29; output seen:
#   torch 2.13.0, transformers 5.23.0
#   attention of a query that is NaN, by hand: NaN
#   attention of a query that is NaN, is_causal: 0
#   attention of a query that is NaN, the same mask as a tensor: NaN
#   sdpa, one NaN in q_proj.weight, a row alone: logits are finite, 0.08 from the whole model's
#   sdpa, one NaN in q_proj.weight, the same row, padded: logits are NaN
#   sdpa: the loss is 3.474, its gradient is NaN
#   eager, one NaN in q_proj.weight, a row alone: logits are NaN
#   eager, one NaN in q_proj.weight, the same row, padded: logits are NaN
#   eager: the loss is nan, its gradient is NaN
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 transformers==5.23.0

cat > look.py <<'EOP'
import sys

import torch
import transformers
from torch.nn.functional import scaled_dot_product_attention as attend
from transformers import LlamaConfig, LlamaForCausalLM

print(f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}")
seen = {}
torch.manual_seed(0)
query, key, value = (torch.randn(1, 1, 4, 8) for _ in range(3))
query[0, 0, 2, 0] = float("nan")
mask = torch.ones(4, 4, dtype=torch.bool).tril()
by_hand = (query @ key.mT / 8**0.5).masked_fill(~mask, float("-inf")).softmax(-1) @ value
for name, found in {
    "by hand": by_hand,
    "is_causal": attend(query, key, value, is_causal=True),
    "the same mask as a tensor": attend(query, key, value, attn_mask=mask),
}.items():
    row = found[0, 0, 2]
    seen[name] = "NaN" if row.isnan().all() else "0" if (row == 0).all() else "numbers"
    print(f"attention of a query that is NaN, {name}: {seen[name]}")

tokens = torch.arange(1, 9)[None]
padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), tokens], dim=1)
for attention in ("sdpa", "eager"):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        attn_implementation=attention,
    )).eval()
    whole = model(input_ids=tokens).logits
    model.model.layers[0].self_attn.q_proj.weight.data[0, 0] = float("nan")
    for name, inputs in {
        "a row alone": {"input_ids": tokens},
        "the same row, padded": {"input_ids": padded, "attention_mask": (padded > 0).long()},
    }.items():
        logits = model(**inputs).logits[:, -8:]
        finite = bool(logits.isfinite().all())
        apart = f", {float((logits - whole).detach().abs().max()):.2f} from the whole model's" if finite else ""
        seen[attention, name] = "finite" if finite else "NaN"
        print(f"{attention}, one NaN in q_proj.weight, {name}: logits are {seen[attention, name]}{apart}")
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    gradient = model.model.layers[0].self_attn.q_proj.weight.grad
    seen[attention, "gradient"] = "NaN" if gradient.isnan().any() else "finite"
    print(f"{attention}: the loss is {float(loss.detach()):.3f}, its gradient is {seen[attention, 'gradient']}")

as_recorded = {
    "by hand": "NaN", "is_causal": "0", "the same mask as a tensor": "NaN",
    ("sdpa", "a row alone"): "finite", ("sdpa", "the same row, padded"): "NaN", ("sdpa", "gradient"): "NaN",
    ("eager", "a row alone"): "NaN", ("eager", "the same row, padded"): "NaN", ("eager", "gradient"): "NaN",
}
print("as recorded" if seen == as_recorded else "CHANGED")
sys.exit(seen != as_recorded)
EOP
env/bin/python look.py
