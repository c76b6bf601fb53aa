"""A forget loss of your own, by "module:Class".

    python examples/own_loss.py --model DIR --forget forget.jsonl --retain retain.jsonl --output runs/own_loss

The command line takes it too, in the folder of this file: `unlora unlearn ... --loss own_loss:HalfProbability`.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from unlora.losses import ForgetInputs, ForgetTerm
from unlora.recipes.unlearn import unlearn
from unlora.run.presets import resolve_settings


@dataclass(frozen=True)
class HalfProbability(ForgetTerm):
    """max(0, (1/T) log p(y | x) - log level): ascent until the answer's tokens have `level` of probability."""

    name = "half_probability"

    level: float = 0.2
    """Geometric mean of the answer's token probabilities at which nothing more is asked."""

    def __call__(self, inputs: ForgetInputs) -> Tensor:
        """One number an example."""
        mean = inputs.predictions.sequence_log_probs() / inputs.predictions.token_counts
        return (mean - math.log(self.level)).clamp(min=0)


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "forget", "retain"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--level", type=float, default=0.2)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting, as of `unlora unlearn`"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/own_loss"))
    options = parser.parse_args()

    sys.path.insert(0, str(Path(__file__).parent))  # so that the class is found by its name
    settings = resolve_settings(
        preset_name=None,
        config_file=None,
        flags={
            "objective.forget": "own_loss:HalfProbability",
            "model.name": options.model,
            "data.forget": options.forget,
            "data.retain": options.retain,
        },
        overrides=[f"objective.forget_parameters.level={options.level}", "evaluation.max_new_tokens=24", *options.set],
    )
    metrics = unlearn(settings, options.output)["models"]["unlearned"]["metrics"]
    for name in ("forget_probability", "retain_probability"):
        print(f"{name} {metrics[name]['value']:.3f}")


if __name__ == "__main__":
    main()
