"""A sample of the harness's inputs; all of them are run by `make faults` (docs/faults.md)."""

import subprocess
import sys
from pathlib import Path

from tests.faults.harness.areas import AREAS, cases
from tests.faults.harness.case import Case, refused
from tests.faults.harness.child import Ended
from tests.faults.harness.verdict import judge

AT_LEAST = {
    "data": 95, "settings": 157, "models": 152, "tokenizers": 48, "adapters": 87, "runs": 83, "outputs": 44,
    "commands": 86,
}  # fmt: skip


def test_every_area_has_its_inputs():
    assert AREAS.keys() == AT_LEAST.keys()
    assert all(len(cases(area)) >= count for area, count in AT_LEAST.items())


CASE = Case("x", lambda _place, _world: [], refused("bad.jsonl", "line 2"), leaves=("work/log*",))
GOOD = "error: bad.jsonl, line 2: not valid JSON; one object a line.\n"
ENDS = {
    "ok": Ended(2, "", GOOD, 1.0, ("work/log.txt",)),
    "unclear: no place": Ended(2, "", "error: not valid JSON.\n", 1.0),
    "unclear: two lines": Ended(2, "", GOOD * 2, 1.0),
    "unclear: more behind it": Ended(2, "", f"{GOOD}and more\n", 1.0),
    "unclear: long": Ended(2, "", f"error: bad.jsonl, line 2: {'x' * 500}\n", 1.0),
    "unclear: Python's word": Ended(2, "", "error: bad.jsonl, line 2: KeyError 'x'\n", 1.0),
    "traceback": Ended(1, "", "Traceback (most recent call last):\n  ...\nKeyError: 'x'\n", 1.0),
    "wrong: it worked": Ended(0, "done\n", "", 1.0),
    "wrong: something is left": Ended(2, "", GOOD, 1.0, ("work/out",)),
    "wrong: the terminal obeys": Ended(2, "", f"error: bad.jsonl, line 2: \x1b[31m{GOOD}", 1.0),
    "hang: time of the processor": Ended(-24, "", "", 60.0),
    "hang: time of the clock": Ended(None, "", "", 180.0),
    "killed": Ended(-9, "", "", 3.0),
}


def test_ends_are_told_apart():
    assert {name: judge(CASE, ended)[0] for name, ended in ENDS.items()} == {name: name.split(":")[0] for name in ENDS}


SAMPLE = ("file: cut", "record: two shapes", "turns: ends", "name: TOFU", "odd, for people: the same", "file: UTF-16")


def test_sample_ends_as_it_should():
    named = [part for name in SAMPLE for part in ("--only", name)]
    command = [sys.executable, "-m", "tests.faults.harness", "bad-inputs", "--area", "data", *named]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
