#!/usr/bin/env bash
# PEFT's CorDA cannot be used where PEFT is installed with what it says it needs.
#
# One would guess:  an initialiser that LoraConfig offers works wherever PEFT itself can be imported.
# What happens:     peft.tuners.lora.corda takes `dataclass` from `attr`, the package attrs, and not from the standard
#                   library. attrs is no dependency of PEFT, transformers, torch or accelerate, so a fresh environment
#                   has none: `import peft` works, CordaConfig works, and the preprocessing that CorDA needs ends in
#                   ModuleNotFoundError. Where something else has brought attrs along, nobody notices.
# Packages:         peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU)
# Where it matters: comparisons of LoRA starts, and tools that try CorDA by name: the message speaks of a module that
#                   nobody has heard of, and reads as if PEFT were too old. `pip install attrs` mends it.
# Run on 2026-11-29; output seen:
#   peft 0.21.2
#   LoraConfig offers: corda
#   attrs among what PEFT needs: False
#   eva: imports
#   loraga: imports
#   corda: No module named 'attr'
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet --no-compile torch==2.13.0 transformers==5.23.0 peft==0.21.2

env/bin/python -W ignore - <<'EOF'
import importlib
import importlib.metadata
import sys

import peft

print("peft", peft.__version__)
CONFIG = peft.LoraConfig(init_lora_weights="corda", corda_config=peft.tuners.lora.config.CordaConfig())
print("LoraConfig offers:", CONFIG.init_lora_weights)
declared = [line.split(";")[0].strip() for line in importlib.metadata.requires("peft") or () if "extra ==" not in line]
print("attrs among what PEFT needs:", any(line.startswith("attrs") for line in declared))


def usable(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        return str(error)
    return "imports"


found = {name: usable(f"peft.tuners.lora.{name}") for name in ("eva", "loraga", "corda")}
for name, outcome in found.items():
    print(f"{name}: {outcome}")
expected = {"eva": "imports", "loraga": "imports", "corda": "No module named 'attr'"}
same = found == expected
print("as recorded" if same else "CHANGED")
sys.exit(not same)
EOF
