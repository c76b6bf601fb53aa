"""Try every class of transformers that may be a causal language model, and write which work.

    python -m unlora_research.model_map [KIND ...] --output map.json [--jobs 2] [--limit 300] [--page docs/models.md]
    python -m unlora_research.model_map --from map.json --page docs/models.md
    python -m unlora_research.model_map --differences docs/models.json NEW.json

Without KIND (model types such as llama or qwen3_moe), all. With KIND and an output that is there, those are tried again
and the others kept. Exit status 1: a class ends in an error that nobody words, or a number is wrong.
"""

import argparse
import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Any

from unlora.artifacts import read_json_object, write_json, write_text
from unlora.cli.terminal import echo
from unlora.errors import InputError
from unlora_research.model_map.page import differences, page
from unlora_research.model_map.pool import all_kinds, try_all
from unlora_research.model_map.verdict import EXAMPLES, MEANINGS, STARTS, Verdict, read_map


def main() -> None:
    """Parse, then do it."""
    options = _parser().parse_args()
    try:
        if options.differences is not None:
            old, new = (read_map(read_json_object(path)) for path in options.differences)
            for line in differences(old, new) or ["nothing differs"]:
                echo(line)
            return
        record = read_json_object(options.source) if options.source is not None else tried(options)
        if options.page is not None:
            write_text(options.page, page(record, read_map(record)))
    except InputError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    bad = [one for one in read_map(record) if one.outcome in ("error", "wrong")]
    sys.exit(1 if bad else 0)


def tried(options: argparse.Namespace) -> dict[str, Any]:
    """Try the classes asked for and write the map."""
    known = all_kinds()
    unknown = [kind for kind in options.kinds if kind not in known]
    if unknown:
        raise InputError(f"model type '{unknown[0]}': no causal language model of this transformers has it.")
    kept: dict[str, Verdict] = {}
    if options.kinds and options.output is not None and options.output.is_file():
        kept = {one.kind: one for one in read_map(read_json_object(options.output))}
    record = _record([], len(known))
    for verdict in try_all(options.kinds or known, jobs=options.jobs, limit=options.limit):
        kept[verdict.kind] = verdict
        echo(f"{verdict.kind}: {MEANINGS[verdict.outcome]} ({verdict.seconds:.0f} s) {verdict.line}")
        record = _record([kept[kind] for kind in known if kind in kept], len(known))
        if options.output is not None:
            write_json(options.output, record)  # what was found stays, however the rest ends
    return record


def _record(verdicts: list[Verdict], known: int) -> dict[str, Any]:
    return {
        "known": known,
        "command": "python -m unlora_research.model_map --output docs/models.json --page docs/models.md",
        "versions": {name: importlib.metadata.version(name) for name in ("transformers", "peft", "torch")},
        "processor": platform.machine(),
        "seconds": sum(one.seconds for one in verdicts),
        "starts": list(STARTS),
        "steps": EXAMPLES // 4,
        "verdicts": [one.model_dump(mode="json") for one in verdicts],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="model types; none: all")
    parser.add_argument("--output", type=Path, help="file of the map, JSON")
    parser.add_argument("--page", type=Path, help="page to write of it")
    parser.add_argument("--jobs", type=int, default=1, help="classes at a time")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one class")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="a map made before")
    parser.add_argument(
        "--differences", nargs=2, type=Path, metavar=("OLD", "NEW"), help="what two maps have otherwise"
    )
    return parser


if __name__ == "__main__":
    main()
