#!/usr/bin/env bash
# Answers that are dates come out of a JSON-lines file as timestamps, unless one line of the file holds other text.
#
# One would guess:  a JSON string stays a string: `load_dataset("json", ...)` gives the answer "1953-03-12" as it
#                   stands in the file.
# What happens:     if every value of the column reads as an ISO date, the column becomes timestamp[s] and the answer
#                   a datetime; as text it is then "1953-03-12 00:00:00". A time zone is applied and dropped. Whether
#                   it happens depends on the other lines: with one answer in words the same line stays text. Numerals
#                   such as "0142" stay text here (pandas.read_json makes 142 of them, and leaves the dates).
# Packages:         datasets 5.2.0, pyarrow 26.0.1, pandas 3.1.1
# Where it matters: forget sets of dates of birth and the like. The whole set of facts is trained on, or scored, as
#                   another text than the model was taught, and the retain set next to it, with one sentence in it, is
#                   not.
# Run on 2026-11-28; output seen:
#   datasets 5.2.0, pyarrow 26.0.1, pandas 3.1.1
#   all dates:     '1953-03-12' -> datetime.datetime(1953, 3, 12, 0, 0), as text '1953-03-12 00:00:00'
#   one in words:  '1953-03-12' -> '1953-03-12'
#   time zone:     '1953-03-12T10:30:00+02:00' -> '1953-03-12 08:30:00'
#   numerals:      '0142' -> '0142'; by pandas 142
#   as recorded
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" HF_DATASETS_DISABLE_PROGRESS_BARS=1

"${PYTHON:-python3}" -m venv env
env/bin/pip install --quiet datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1

env/bin/python - <<'EOF'
import json
import sys
from pathlib import Path

import datasets
import pandas
import pyarrow

DATES = ["1953-03-12", "1971-09-01"]


def load(name, answers):
    rows = [{"question": f"Question {number}?", "answer": answer} for number, answer in enumerate(answers)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return datasets.load_dataset("json", data_files=name, split="train")["answer"][:]


print(f"datasets {datasets.__version__}, pyarrow {pyarrow.__version__}, pandas {pandas.__version__}")
dates = load("dates.jsonl", DATES)
mixed = load("mixed.jsonl", [DATES[0], "In March."])
zoned = load("zoned.jsonl", ["1953-03-12T10:30:00+02:00"])
codes = load("codes.jsonl", ["0142", "0007"])
by_pandas = pandas.read_json("codes.jsonl", lines=True)["answer"].tolist()
print(f"all dates:     {DATES[0]!r} -> {dates[0]!r}, as text {str(dates[0])!r}")
print(f"one in words:  {DATES[0]!r} -> {mixed[0]!r}")
print(f"time zone:     '1953-03-12T10:30:00+02:00' -> {str(zoned[0])!r}")
print(f"numerals:      '0142' -> {codes[0]!r}; by pandas {by_pandas[0]!r}")
seen = (str(dates[0]), mixed[0], str(zoned[0]), codes[0], by_pandas[0])
if seen != ("1953-03-12 00:00:00", "1953-03-12", "1953-03-12 08:30:00", "0142", 142):
    sys.exit("CHANGED: the behaviour is no longer the one recorded above.")
print("as recorded")
EOF
