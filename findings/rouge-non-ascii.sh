#!/usr/bin/env bash
# ROUGE-L of two different Russian sentences is 1.0 if they share a year.
#
# One would guess:  rouge-score compares words of any script, or says that it does not.
# What happens:     its tokenizer turns every character outside a-z and 0-9 into a blank. Of a sentence in Cyrillic,
#                   Greek, Chinese or Devanagari only the digits and Latin letters are left: with a year in both the
#                   score is that of the year, with none it is 0.0 even for equal sentences. Accented Latin words fall
#                   into pieces.
# Packages:         rouge-score 0.1.2
# Where it matters: ROUGE-L recall against the forgotten answer is a standard metric of unlearning (TOFU, MUSE). In
#                   these scripts it says "still known" of a wrong answer and "forgotten" of a right one.
# Run on 2026-11-28; output seen:
#   rouge-score 0.1.2
#   different, same year: 'Родилась в 1953 году в Турине.' against 'Умерла в 1953 году в Осло.': recall 1.00
#   equal, no digit: 'Она живёт в Турине.' against 'Она живёт в Турине.': recall 0.00
#   different, in English: 'Born in 1953 in Turin.' against 'Died in 1953 in Oslo.': recall 0.60
#   equal, in English: 'She lives in Turin.' against 'She lives in Turin.': recall 1.00
#   two names: 'Øyvind' against 'yvind': recall 1.00
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet rouge-score==0.1.2

env/bin/python - <<'EOF'
import sys
from importlib.metadata import version

from rouge_score.rouge_scorer import RougeScorer

CASES = {
    "different, same year": ("Родилась в 1953 году в Турине.", "Умерла в 1953 году в Осло.", 1.0),
    "equal, no digit": ("Она живёт в Турине.", "Она живёт в Турине.", 0.0),
    "different, in English": ("Born in 1953 in Turin.", "Died in 1953 in Oslo.", 0.6),
    "equal, in English": ("She lives in Turin.", "She lives in Turin.", 1.0),
    "two names": ("Øyvind", "yvind", 1.0),
}
scorer = RougeScorer(["rougeL"])
print(f"rouge-score {version('rouge-score')}")
changed = False
for name, (reference, answer, expected) in CASES.items():
    recall = scorer.score(reference, answer)["rougeL"].recall
    print(f"{name}: {reference!r} against {answer!r}: recall {recall:.2f}")
    changed |= abs(recall - expected) > 1e-9
if changed:
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
