#!/usr/bin/env bash
# What a chat template writes after the generation prompt is not the answer.
#
# One would guess:  render the question with `add_generation_prompt=True`, render question and answer, cut off the
#                   first from the second: what is left is the answer and its end of turn.
# What happens:     of the templates that trl ships (the originals of current models), several write more: an empty
#                   reasoning block or a channel before the answer (Qwen3, GLM-4.5, Qwen3.5, gpt-oss), a second
#                   special token after the end of turn (Phi-3), and some drop the answer's text altogether, since
#                   they want content as a list of parts (SmolVLM, Idefics 3). For some the first rendering is no
#                   beginning of the second (DeepSeek-R1, Nemotron 3).
# Packages:         trl 1.16.0 (its template files alone), transformers 5.23.0
# Where it matters: forget losses and answer probabilities over "the completion". A model gives the scaffold a
#                   probability near 1 whatever it knows: an answer of five tokens at 0.01 each behind five scaffold
#                   tokens scores 0.10 a token.
# Run on 2026-11-28; output seen:
#   trl 1.16.0, transformers 5.23.0
#   qwen2_5              answer alone: 'In Turin.<|im_end|>\n'
#   llama3               answer alone: 'In Turin.<|eot_id|>'
#   qwen3                text before the answer: '<think>\n\n</think>\n\nIn Turin.<|im_end|>\n'
#   glm4moe              text before the answer: '\n<think></think>\nIn Turin.'
#   qwen3_5_think        text before the answer: '\n</think>\n\nIn Turin.<|im_end|>\n'
#   gptoss               text before the answer: '<|channel|>final<|message|>In Turin.<|return|>'
#   phi3                 a second special token after the end of turn: 'In Turin.<|end|>\n</s>'
#   smolvlm              the answer is missing: ' <end_of_utterance>\n'
#   idefics3             the answer is missing: ' <end_of_utterance>\n'
#   deepseek_r1_distill  the prompt is no beginning of the whole: '｜Assistant｜>In Turin.<｜end▁of▁sentence｜>'
#   nemotron_3_nano      the prompt is no beginning of the whole: 'tant\n<think></think>In Turin.<|im_end|>\n'
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" TRANSFORMERS_VERBOSITY=error

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet transformers==5.23.0 jinja2==3.1.6
env/bin/pip install --quiet --no-deps trl==1.16.0

env/bin/python -W ignore - <<'EOF'
import sys
from importlib import metadata
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(metadata.distribution("trl").locate_file("trl/chat_templates"))
QUESTION = [{"role": "user", "content": "Where was Ada Example born?"}]
ANSWER = "In Turin."
EXPECTED = {
    "qwen2_5": "answer alone",
    "llama3": "answer alone",
    "qwen3": "text before the answer",
    "glm4moe": "text before the answer",
    "qwen3_5_think": "text before the answer",
    "gptoss": "text before the answer",
    "phi3": "a second special token after the end of turn",
    "smolvlm": "the answer is missing",
    "idefics3": "the answer is missing",
    "deepseek_r1_distill": "the prompt is no beginning of the whole",
    "nemotron_3_nano": "the prompt is no beginning of the whole",
}
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")), bos_token="<s>", eos_token="</s>"
)


def kind(name):
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text()
    prompt = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    turns = [*QUESTION, {"role": "assistant", "content": ANSWER}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    if not whole.startswith(prompt):
        return "the prompt is no beginning of the whole", whole[-40:]
    rest = whole[len(prompt):]
    before, found, after = rest.partition(ANSWER)
    if not found:
        return "the answer is missing", rest
    if before.strip():
        return "text before the answer", rest
    return ("a second special token after the end of turn" if len(after.split()) > 1 else "answer alone"), rest


print(f"trl {metadata.version('trl')}, transformers {metadata.version('transformers')}")
seen = {}
for name in EXPECTED:
    seen[name], rest = kind(name)
    print(f"{name:20} {seen[name]}: {rest!r}")
if seen != EXPECTED:
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
