#!/usr/bin/env bash
# generate() reads a RoBERTa decoder at other positions than the model itself does.
#
# One would guess:  the first token that `generate` chooses greedily is the most probable one by the model's own forward
#                   pass over the same prompt; no padding is involved.
# What happens:     RoBERTa and the classes made from it count positions from `padding_idx + 1`, which their forward
#                   does by itself. `generate` gives `position_ids` counted from 0 to every model that takes them, so
#                   these are read two positions too early, the second token at the row that belongs to padding. What
#                   is generated is of another model than what a forward pass trains and scores. Nothing is said.
# Packages:         transformers 5.23.0, torch 2.13.0 (CPU)
# Where it matters: text that such a decoder generates (RoBERTa, XLM-RoBERTa, CamemBERT, X-MOD, Data2VecText), and all
#                   that is computed from it.
# Run on 2026-11-29; output seen:
#   transformers 5.23.0
#   bert: 0.00 nats from the model, 0.00 from positions counted from 0; 0 of 4 tokens others
#   roberta: 7.48 nats from the model, 0.00 from positions counted from 0; 4 of 4 tokens others
#   xlm-roberta: 6.48 nats from the model, 0.00 from positions counted from 0; 4 of 4 tokens others
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
from transformers import AutoModelForCausalLM, BertConfig, RobertaConfig, XLMRobertaConfig

SIZES = dict(
    vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, is_decoder=True,
    pad_token_id=1, bos_token_id=0, eos_token_id=2, initializer_range=0.3, max_position_embeddings=64,
)
KINDS = {"bert": BertConfig(**SIZES), "roberta": RobertaConfig(**SIZES), "xlm-roberta": XLMRobertaConfig(**SIZES)}


@torch.no_grad()
def differences(config):
    """Largest difference of a log-probability of the first new token: of generate to the model, and to it from 0."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    prompt = torch.randint(3, 64, (4, 9))  # no padding anywhere
    whole = torch.ones_like(prompt)
    found = model.generate(
        input_ids=prompt, attention_mask=whole, max_new_tokens=1, do_sample=False, output_logits=True,
        return_dict_in_generate=True,
    )
    said = found.logits[0].log_softmax(-1)
    own = model(input_ids=prompt, attention_mask=whole).logits[:, -1].log_softmax(-1)
    places = torch.arange(9).expand(4, 9)
    from_0 = model(input_ids=prompt, attention_mask=whole, position_ids=places).logits[:, -1].log_softmax(-1)
    other = int((found.sequences[:, -1] != own.argmax(-1)).sum())
    return float((said - own).abs().max()), float((said - from_0).abs().max()), other


print(f"transformers {transformers.__version__}")
seen = {}
for kind, config in KINDS.items():
    off, off_0, other = seen[kind] = differences(config)
    print(f"{kind}: {off:.2f} nats from the model, {off_0:.2f} from positions counted from 0; {other} of 4 tokens others")
wrong = [seen[kind] for kind in ("roberta", "xlm-roberta")]
right = seen["bert"][0] < 0.01 and all(off > 1 and off_0 < 0.01 for off, off_0, _ in wrong)
if not right:
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
