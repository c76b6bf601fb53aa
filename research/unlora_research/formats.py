"""What a checkpoint in fewer bits knows of what is to be forgotten, and whether it is unlearned from end to end.

    python -m unlora_research.formats FOLDER [--world SEED ...] [--quick]

The target of a small world is held in each format that runs here, measured, unlearned by the default preset for a few
passes and evaluated, by `unlora unlearn` as users call it. The change of the forget probability is that of the target
before anything is trained: what rounding alone does, over the same questions. Both exports are then loaded without
unlora and asked again (`handed_over`).
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unlora.artifacts import write_json
from unlora.cli.terminal import echo
from unlora.errors import InputError
from unlora.metrics.intervals import mean_interval
from unlora.suites.tofu.scores import TOFU_FILE
from unlora_research.handed_over import hand_over, read_handed_over
from unlora_research.packed import write_fp8, write_int4, write_int8, write_mxfp4, write_mxfp8, write_torchao
from unlora_research.small_world import build_small_world
from unlora_research.tables import markdown_table, spread
from unlora_research.unlearning import small_world_run, unlearn_from
from unlora_research.worlds import GptOssWorld, SmallWorld


class Format(NamedTuple):
    """How a target is held."""

    whole: str
    """The row with the same target in full precision."""
    quantisation: str | None = None
    """What `model.quantisation` asks for."""
    write: Callable[[Path, Path], Path] | None = None
    """Writes the target in this format into a folder."""
    module: str | None = None
    """What has to be installed for it to be read."""

    @property
    def runs(self) -> bool:
        """Whether it is."""
        return self.module is None or importlib.util.find_spec(self.module) is not None

    @property
    def world(self) -> type[SmallWorld]:
        """Where the target lives: dense, or a mixture whose experts alone the format is of."""
        return GptOssWorld if self.whole == MIXTURE else SmallWorld


DENSE, MIXTURE = "float32", "float32, a mixture"
FORMATS = {
    DENSE: Format(DENSE),
    "bitsandbytes, 8 bits": Format(DENSE, quantisation="8bit"),
    "bitsandbytes, 4 bits (nf4)": Format(DENSE, quantisation="4bit"),
    "FP8 files, read out": Format(DENSE, write=write_fp8),
    MIXTURE: Format(MIXTURE),
    "MXFP4 files of a mixture, read out": Format(MIXTURE, write=write_mxfp4),
    "compressed-tensors, 8-bit integers, read out": Format(DENSE, write=write_int8, module="compressed_tensors"),
    "compressed-tensors, 4-bit integers in groups of 32, read out": Format(
        DENSE, write=write_int4, module="compressed_tensors"
    ),
    "MXFP8 files, read out": Format(DENSE, write=write_mxfp8),
    "torchao, 8-bit integers, read out": Format(DENSE, write=write_torchao, module="torchao"),
}
WORLD = {
    "people": 12, "forget_people": 4, "held_out_people": 2, "hidden_size": 128, "layers": 2, "vocabulary": 600,
    "learning_rate": 5e-3, "batch_size": 16,
}  # fmt: skip
QUICK = {**WORLD, "people": 8, "forget_people": 2, "epochs": 1}
PASSES, RATE = 4, 4e-3


def main() -> None:
    """Parse, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--world", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--quick", action="store_true", help="a tiny world and one pass, to see that it works")
    options = parser.parse_args()
    try:
        runs = [run_world(options.folder / f"world-{seed}", seed, quick=options.quick) for seed in options.world]
        echo(table(runs))
        echo(export_table(runs))
        for name in [name for name, format in FORMATS.items() if not format.runs]:
            echo(f"{name}: not run, {FORMATS[name].module} is not installed")
    except InputError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def run_world(folder: Path, seed: int, *, quick: bool = False) -> dict[str, Path]:
    """Unlearn the targets of one world in every format and hand the results over; format -> its run."""
    runs: dict[str, Path] = {}
    for number, (name, format) in enumerate(FORMATS.items()):
        if not format.runs:
            continue
        runs[name] = folder / f"run-{number}"
        files = build_small_world(format.world.from_mapping({"seed": seed, **(QUICK if quick else WORLD)}))
        target = format.write(files.target, folder / f"target-{number}") if format.write else files.target
        base = small_world_run(files, "cpu", epochs=1 if quick else PASSES)
        changes = {"model": {"name": str(target), "quantisation": format.quantisation}}
        common: dict[str, Any] = {
            "training": {"learning_rate": RATE}, "level": {"aim": "none", "stop": False}, "seed": seed,
        }  # fmt: skip
        if not unlearn_from("default", runs[name], base, common, changes):
            raise InputError(f"{runs[name]}: training diverged.")
        done = folder / f"handed-over-{number}.json"
        if not done.is_file():
            write_json(done, hand_over(runs[name], files.forget, folder / f"exports-{number}")._asdict())
    return runs


def table(runs: Sequence[dict[str, Path]]) -> str:
    """Over all worlds: the target's forget probability, what rounding alone changed of it, and what was left."""
    lines = []
    for name, format in FORMATS.items():
        if not format.runs:
            continue
        plain = [forget_probabilities(one[format.whole], "target") for one in runs]
        before = [forget_probabilities(one[name], "target") for one in runs]
        after = [forget_probabilities(one[name], "unlearned") for one in runs]
        change = np.concatenate(before) - np.concatenate(plain)
        low, high = mean_interval(change)
        told = "" if name == format.whole else f"{change.mean():+.4f} [{low:+.4f}, {high:+.4f}]"
        most = "" if name == format.whole else f"{np.abs(change).max():.3f}"
        left = spread([float(one.mean()) for one in after], 3)
        lines.append([name, spread([float(one.mean()) for one in before], 3), told, most, left])
    heading = ["format", "forget probability of the target", "changed by rounding", "largest", "after unlearning"]
    return markdown_table(heading, lines)


def export_table(runs: Sequence[dict[str, Path]]) -> str:
    """Over all worlds: how far what is loaded without unlora is from what was measured, at the worst question."""
    lines = []
    for number, (name, format) in enumerate(FORMATS.items()):
        if not format.runs:
            continue
        found = [read_handed_over(one[name].with_name(f"handed-over-{number}.json")) for one in runs]
        kinds = {"adapter": [one.adapter for one in found], "merged": [one.merged for one in found]}
        lines.append([name, *(f"{max(values):.1e}" for values in kinds.values()), found[0].adapter_form])
    return markdown_table(["format", "adapter in PEFT", "merged in transformers", "the adapter"], lines)


def forget_probabilities(run: Path, model: str) -> np.ndarray:
    """Of every forget question, in order."""
    scores = TOFU_FILE.load(run / "scores" / f"{model}.jsonl")
    return np.array([one.probability for one in scores.sets["forget"]])


if __name__ == "__main__":
    main()
