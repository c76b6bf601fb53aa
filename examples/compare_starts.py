"""Two starts side by side: the same model, records, loss and steps.

python examples/compare_starts.py --model DIR --forget forget.jsonl --retain retain.jsonl --output runs/starts
"""

import argparse
from pathlib import Path

from unlora.recipes.unlearn import unlearn
from unlora.run.presets import resolve_settings
from unlora.starts import STARTS


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "forget", "retain"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--base", help="base of an adapter folder, when not where its config says")
    parser.add_argument("--starts", nargs="+", default=["contrast_inputs", "vila"], choices=STARTS)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting, as of `unlora unlearn`"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/starts"))
    options = parser.parse_args()

    rows = []
    for start in options.starts:
        settings = resolve_settings(
            preset_name=None,
            config_file=None,
            flags={
                "start.kind": start,
                "model.name": options.model,
                "model.base": options.base,
                "data.forget": options.forget,
                "data.retain": options.retain,
            },
            overrides=["evaluation.max_new_tokens=24", *options.set],
        )
        models = unlearn(settings, options.output / start)["models"]
        before, after = (models[role]["metrics"] for role in ("target", "unlearned"))
        kept = after["retain_probability"]["value"] / before["retain_probability"]["value"]
        rows.append((start, before["forget_probability"]["value"], after["forget_probability"]["value"], kept))

    print(f"{'start':<20}{'forget before':>14}{'after':>10}{'kept':>10}")
    for start, before, after, kept in rows:
        print(f"{start:<20}{before:>14.3f}{after:>10.3f}{kept:>10.1%}")


if __name__ == "__main__":
    main()
