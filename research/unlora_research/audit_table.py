"""The relearning results of several audits as one Markdown table.

    python -m unlora_research.audit_table NAME=FOLDER [NAME=FOLDER ...]

FOLDER holds the audit.json of `unlora audit`. Recovery is the share of the lost answer probability that is back after
the attack's last step; in brackets the control's; then the difference with its 95 % interval over examples.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from unlora.artifacts import read_json
from unlora.cli.terminal import echo

LESSONS = {"few": "a tenth of the forget set", "unrelated": "unrelated text", "full": "the whole forget set"}
"""What is learnt -> heading; in each cell the attacker of that lesson that found most."""


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audits", nargs="+", metavar="NAME=FOLDER")
    options = parser.parse_args()
    echo("| | forget probability before | " + " | ".join(LESSONS.values()) + " | outcome |")
    echo("|---" * (len(LESSONS) + 3) + "|")
    for audit in options.audits:
        name, _, folder = audit.partition("=")
        found = read_json(Path(folder) / "audit.json")["attacks"]["relearning"]
        cells = [f"{before(Path(folder)):.3f}", *(cell(found["estimates"], lesson) for lesson in LESSONS)]
        echo(f"| `{name}` | " + " | ".join(cells) + f" | {found['outcome']} |")


def before(folder: Path) -> float:
    """Mean answer probability of the unlearned model on the forget set, before any attack."""
    lines = (folder / "records" / "relearning.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    first = [one["probability"][0] for one in records if one["model"] == "unlearned"]
    return sum(first) / len(first)


def cell(estimates: dict[str, dict[str, Any]], lesson: str) -> str:
    """The worst attacker of one lesson in one audit."""
    names = [key.removesuffix("_excess") for key in estimates if key.endswith(f"_{lesson}_excess")]
    if not names:
        return "not tried"
    name = max(names, key=lambda one: estimates[f"{one}_excess"]["value"] or float("-inf"))
    excess = estimates[f"{name}_excess"]
    if excess["value"] is None:
        return excess["note"]
    recovery = percent(estimates[f"{name}_recovery"]["value"])
    control = estimates.get(f"{name}_control")
    if control is None:
        return f"{recovery} (no control)"
    interval = f"[{percent(excess['low'])}, {percent(excess['high'])}]"
    return f"{recovery} ({percent(control['value'])}); {excess['value']:+.0%} {interval}"


def percent(share: float) -> str:
    """A share in per cent, without the sign of a rounded zero."""
    return f"{share:.0%}".replace("-0%", "0%") if share > -0.005 else f"{share:.0%}"


if __name__ == "__main__":
    main()
