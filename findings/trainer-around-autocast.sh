#!/usr/bin/env bash
# LoRA trained with transformers' Trainer inside one `torch.autocast` block does not learn, and nothing says so.
#
# One would guess:  autocast around `trainer.train()` is mixed precision, as autocast around each forward pass is.
# What happens:     the first cast of every float32 weight that asks for a gradient is kept until the outermost block
#                   ends, so every later step reads the weights of the first one. The optimiser's steps are real and
#                   all along one gradient: the loss in the log stands still, and the weights run away from it.
# Packages:         torch 2.13.0 (CPU), transformers 5.23.0, peft 0.21.2, accelerate 1.15.0
# Where it matters: a library's training called from code that has a block of its own around it: unlearning, or an
#                   attack of an audit, that the log calls ineffective and that has changed the model blindly.
# Run on 2026-12-01; output seen:
#   torch 2.13.0+cpu, transformers 5.23.0, peft 0.21.2
#   each forward pass its own block: loss 4.847, 4.588, 4.379, 4.256, 4.046, 3.933, 3.876, 3.792
#   one block around train():        loss 4.847, 4.847, 4.847, 4.847, 4.847, 4.847, 4.847, 4.847
#   after it, in float32: loss 4.570 (before training 4.847)
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 transformers==5.23.0 peft==0.21.2 accelerate==1.15.0

env/bin/python -W ignore - <<'EOF'
import sys
from contextlib import nullcontext

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments

IDS = list(range(1, 17))


def mixed():
    return torch.autocast("cpu", torch.bfloat16)


class OwnBlock(Trainer):
    """Mixed precision for the forward pass and the loss, as torch's manual advises."""

    def compute_loss(self, *args, **kwargs):
        with mixed():
            return super().compute_loss(*args, **kwargs)


def losses(trainer, around):
    """The logged loss of every step, and the model's loss afterwards."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM(config), lora)
    arguments = TrainingArguments(
        "out", max_steps=8, learning_rate=1e-2, lr_scheduler_type="constant", logging_steps=1, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True, per_device_train_batch_size=4,
    )
    made = trainer(model, arguments, train_dataset=[{"input_ids": IDS, "labels": IDS}] * 32)
    made.remove_callback(PrinterCallback)
    with around:
        made.train()
    with torch.no_grad():
        after = float(model(input_ids=torch.tensor([IDS]), labels=torch.tensor([IDS])).loss)
    return [round(line["loss"], 3) for line in made.state.log_history if "loss" in line], after


own, _ = losses(OwnBlock, nullcontext())
one, after = losses(Trainer, mixed())
print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}")
print("each forward pass its own block: loss", ", ".join(f"{value:.3f}" for value in own))
print("one block around train():        loss", ", ".join(f"{value:.3f}" for value in one))
print(f"after it, in float32: loss {after:.3f} (before training {one[0]:.3f})")
if not (own[-1] < own[0] - 0.2 and max(one) - min(one) < 1e-3 and abs(after - one[0]) > 0.05):
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
