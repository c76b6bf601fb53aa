"""What every consumer that is installed makes of exported runs.

    python -m unlora_research.consumers OUTPUT [--model NAME | --run KIND=RUN ...] [--only NAME ...] [--answers N]

Without --run, a tiny model (it needs the embedded one's tokenizer), or that of --model, is taught and made to forget in
OUTPUT, once with an anchored adapter and once with plain LoRA. Each run is exported as adapter and as model; each
consumer scores its answers; the differences are of log-probabilities in nats, against the target with the run's own
adapter. `back` is the share of what the run took away from the forgotten answers that is there again. Consumers that
are not installed are named with what to install. Ends with 1 where a difference is more than rounding explains.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlora.artifacts import write_json
from unlora.cli.terminal import echo
from unlora.errors import InputError, UnloraError
from unlora_research.consumers.small import make_runs
from unlora_research.consumers.subject import export_subject
from unlora_research.consumers.table import CONSUMERS, ELSEWHERE, as_table, missing, try_all

SAME = 1e-3
"""Largest difference of a float32 form; what is rounded is only reported."""
ROUNDED = ("f16", "q8_0", "q4_k_m")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, export, try, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder for consumers.json, and for the tiny runs")
    parser.add_argument(
        "--run", type=kind_and_run, action="append", default=[], metavar="KIND=RUN", help="a finished run in float32"
    )
    parser.add_argument("--model", metavar="NAME", help="teach this one: a folder, or embedded (SmolLM2-135M)")
    parser.add_argument("--only", nargs="+", choices=list(CONSUMERS), default=list(CONSUMERS), help="consumers")
    parser.add_argument("--answers", type=int, help="of each set; the whole forget set, and as many, where left out")
    options = parser.parse_args(argv)
    try:
        rows = _try_installed(options)
    except UnloraError as error:
        echo(f"error: {error}", err=True)
        return error.exit_code
    write_json(options.output / "consumers.json", rows)
    echo(as_table(rows))
    far = [row for row in rows if row["largest"] > SAME and not any(name in row["form"] for name in ROUNDED)]
    for row in far:
        echo(f"{row['consumer']}, {row['run']}, {row['form']}: {row['largest']:.2g} nats apart", err=True)
    return 1 if far else 0


def kind_and_run(text: str) -> tuple[str, Path]:
    """Read KIND=RUN, for argparse."""
    kind, _, run = text.partition("=")
    if not kind or not run:
        raise argparse.ArgumentTypeError(f"must be KIND=RUN, such as plain=runs/x (found {text!r})")
    return kind, Path(run)


def _try_installed(options: argparse.Namespace) -> list[dict[str, Any]]:
    here = []
    for name in options.only:
        lacking = missing(name)
        echo(f"{name}: {'here' if lacking is None else f'not here: pip install {lacking}'}", err=True)
        here += [name] if lacking is None else []
    echo(ELSEWHERE, err=True)
    if options.model is not None and options.run:
        raise InputError("--model and --run: a model is taught, or runs are given; leave one out.")
    options.output.mkdir(parents=True, exist_ok=True)
    runs = dict(options.run) or make_runs(options.output, options.model)
    rows = []
    for kind, run in runs.items():
        with tempfile.TemporaryDirectory(dir=options.output, prefix=".exports-") as folder:
            subject = export_subject(run, Path(folder), options.answers)
            for name in here:
                echo(f"{kind}: {name}", err=True)
                rows += try_all(name, kind, subject)
    return rows


if __name__ == "__main__":
    sys.exit(main())
