#!/usr/bin/env bash
# An adapter that started from `pissa_niter_4`, saved and loaded again, is another model each time.
#
# One would guess:  a saved adapter on the same base gives the trained model back, as it does for every other
#                   initialisation.
# What happens:     PiSSA takes the leading singular directions out of the base, and the saved file does not hold what
#                   was taken: it is computed again when the adapter is loaded. `pissa` does that by an exact SVD and
#                   gives the model back to the last bit. `pissa_niter_N` does it by a randomised one, with whatever
#                   the random generator holds at that time: two loads differ from each other and from the trained
#                   model, here by more than all that training had changed.
# Packages:         peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU)
# Where it matters: a target fine-tuned with this fast form of PiSSA is not one model: what is measured before
#                   unlearning, what is unlearned and what is served are three. Save it with
#                   `path_initial_model_for_weight_conversion`, which converts it to plain LoRA, while the trained
#                   model is still in memory.
# Run on 2026-11-28; output seen:
#   peft 0.21.2
#   init_lora_weights=True: loads off by 0.0% and 0.0% of the change, from each other 0.0%
#   init_lora_weights='pissa': loads off by 0.0% and 0.0% of the change, from each other 0.0%
#   init_lora_weights='olora': loads off by 0.0% and 0.0% of the change, from each other 0.0%
#   init_lora_weights='pissa_niter_4': loads off by 111.1% and 133.2% of the change, from each other 145.9%
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 transformers==5.23.0 peft==0.21.2

env/bin/python -W ignore - <<'EOF'
import sys

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

IDS = torch.arange(1, 65)[None]
SIZES = dict(vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=IDS).logits


def reloaded(start):
    """Distance of two loads from the trained model and from each other, over what training had changed."""
    tuned = get_peft_model(base(), LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=start))
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        tuned(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    trained = logits(tuned)
    tuned.save_pretrained(f"adapter-{start}")
    loads = []
    for seed in (11, 12):
        model = base()
        torch.manual_seed(seed)
        loads.append(logits(PeftModel.from_pretrained(model, f"adapter-{start}")))
    change = (trained - logits(base())).norm()
    return [float((load - trained).norm() / change) for load in loads] + [float((loads[0] - loads[1]).norm() / change)]


print(f"peft {peft.__version__}")
off = {start: reloaded(start) for start in (True, "pissa", "olora", "pissa_niter_4")}
for start, (one, two, between) in off.items():
    print(f"init_lora_weights={start!r}: loads off by {one:.1%} and {two:.1%} of the change, from each other {between:.1%}")
if max(max(off[start]) for start in (True, "pissa", "olora")) > 1e-3 or min(off["pissa_niter_4"]) < 0.05:
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
