"""Sorts how a command ended: ok, unclear, traceback, wrong, hang or killed; by rules, not by eye."""

import fnmatch
import re
import signal

from tests.faults.harness.case import Case
from tests.faults.harness.child import Ended

KINDS = ("ok", "unclear", "traceback", "wrong", "hang", "killed")
LONGEST_LINE = 400
EXCEPTION_NAME = re.compile(r"\b[A-Za-z_]+(Error|Exception|Warning)\b")
CONTINUED = re.compile(r"\n[ \t]+")
"""Click puts the choices that there are on lines of their own, indented."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")
"""Control characters, but for newline and tab; a carriage return of a progress line is looked at by itself."""


def judge(case: Case, ended: Ended) -> tuple[str, str]:
    """The kind of an end, and what is to be said about it (nothing where all is well)."""
    if ended.code is None or ended.code == -signal.SIGXCPU:
        return "hang", f"stopped after {ended.seconds:.0f} s"
    if ended.code < 0:
        return "killed", f"ended by signal {-ended.code}"
    if "Traceback (most recent call last)" in ended.error:
        return "traceback", ended.error.strip().splitlines()[-1]
    if found := CONTROL.search(ended.output + ended.error):
        return "wrong", f"control character {found[0]!r} reaches the terminal"
    if ended.code not in case.right.codes:
        return "wrong", f"exit code {ended.code}, {wanted(case)}: {last_line(ended)}"
    if ended.code == 0:
        return "ok", ""
    if left := [name for name in ended.changed if not any(fnmatch.fnmatch(name, one) for one in case.leaves)]:
        return "wrong", f"exit code {ended.code}, and yet changed: {', '.join(left[:3])}"
    fault = unclear(case, ended.error)
    return ("unclear", fault) if fault else ("ok", "")


def wanted(case: Case) -> str:
    """Which exit codes are right."""
    return " or ".join(map(str, case.right.codes)) + " is right"


def unclear(case: Case, error: str) -> str:
    """What a refusal lacks: one line, the last, not too long, in our words, naming the place. Empty: it is clear."""
    error = CONTINUED.sub(" ", error.rstrip())
    lines = [line for line in error.splitlines() if line.lower().startswith("error: ")]
    if len(lines) != 1 or error.splitlines()[-1] != lines[0]:
        return f"{len(lines)} lines that begin with 'error: ', or not the last: {error.strip()[-200:]}"
    line = lines[0]
    if len(line) > LONGEST_LINE:
        return f"{len(line)} characters: {line[:200]}"
    if name := EXCEPTION_NAME.search(line.removeprefix("error: ").removeprefix("Error: ")):
        return f"names {name[0]}: {line}"
    for says in case.right.says:
        if not any(part in line for part in says.split("|")):
            return f"does not name {says!r}: {line}"
    return ""


def last_line(ended: Ended) -> str:
    """What the command said last."""
    lines = (ended.error.strip() or ended.output.strip()).splitlines()
    return lines[-1][:300] if lines else "(nothing)"
