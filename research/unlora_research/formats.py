"""What a checkpoint in fewer bits knows of what is to be forgotten, and whether it is unlearned from end to end.

    python -m unlora_research.formats FOLDER [--world SEED ...] [--quick]

The target of a small world is held in each format that runs here, measured, unlearned by the default preset for a few
passes and evaluated, by `unlora unlearn` as users call it. The change of the forget probability is that of the target
before anything is trained: what rounding alone does, over the same questions.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from unlora.artifacts import read_json_object, write_json
from unlora.cli.terminal import echo
from unlora.errors import InputError
from unlora.metrics.intervals import mean_interval
from unlora.suites.tofu.scores import TOFU_FILE
from unlora_research.small_world import SmallWorld, build_small_world
from unlora_research.tables import markdown_table, spread
from unlora_research.unlearning import small_world_run, unlearn_from

BLOCK, LARGEST = 32, 448.0
"""Side of the square that has one scale, and the largest number of float8 e4m3."""

FORMATS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bitsandbytes, 8 bits": {"quantisation": "8bit"},
    "bitsandbytes, 4 bits (nf4)": {"quantisation": "4bit"},
    "FP8 files, read out": {"name": "fp8"},
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
    except InputError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def run_world(folder: Path, seed: int, *, quick: bool = False) -> dict[str, Path]:
    """Unlearn the target of one world in every format; format -> its run."""
    files = build_small_world(SmallWorld.from_mapping({"seed": seed, **(QUICK if quick else WORLD)}))
    written = {"fp8": folder / "target-fp8"}
    write_fp8(files.target, written["fp8"])
    base = small_world_run(files, "cpu", epochs=1 if quick else PASSES)
    runs: dict[str, Path] = {}
    for number, (name, model) in enumerate(FORMATS.items()):
        runs[name] = folder / f"run-{number}"
        changes = {"model": {**model, **({"name": str(written[model["name"]])} if "name" in model else {})}}
        common = {"training": {"learning_rate": RATE}, "level": {"aim": "none", "stop": False}, "seed": seed}
        if not unlearn_from("default", runs[name], base, common, changes):
            raise InputError(f"{runs[name]}: training diverged.")
    return runs


def write_fp8(model: Path, folder: Path) -> None:
    """Write a model's projections as float8 codes with a scale for every block, as files of names in -FP8 have them.

    Where it is there already, nothing is done.
    """
    if (folder / "config.json").is_file():
        return
    shutil.copytree(model, folder, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        rows, columns = tensors[name].shape
        blocks = tensors[name].float().reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        scale = blocks.abs().amax(dim=(1, 3)) / LARGEST
        codes = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
        tensors[name], tensors[f"{name}_scale_inv"] = codes, scale
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = read_json_object(folder / "config.json")
    options = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}
    write_json(folder / "config.json", config | {"quantization_config": {**options, "fmt": "e4m3"}})


def table(runs: Sequence[dict[str, Path]]) -> str:
    """Over all worlds: the target's forget probability, what rounding alone changed of it, and what was left."""
    lines = []
    plain = [forget_probabilities(one["float32"], "target") for one in runs]
    for name in FORMATS:
        before = [forget_probabilities(one[name], "target") for one in runs]
        after = [forget_probabilities(one[name], "unlearned") for one in runs]
        change = np.concatenate(before) - np.concatenate(plain)
        low, high = mean_interval(change)
        told = "" if name == "float32" else f"{change.mean():+.4f} [{low:+.4f}, {high:+.4f}]"
        most = "" if name == "float32" else f"{np.abs(change).max():.3f}"
        left = spread([float(one.mean()) for one in after], 3)
        lines.append([name, spread([float(one.mean()) for one in before], 3), told, most, left])
    heading = ["format", "forget probability of the target", "changed by rounding", "largest", "after unlearning"]
    return markdown_table(heading, lines)


def forget_probabilities(run: Path, model: str) -> np.ndarray:
    """Of every forget question, in order."""
    scores = TOFU_FILE.load(run / "scores" / f"{model}.jsonl")
    return np.array([one.probability for one in scores.sets["forget"]])


if __name__ == "__main__":
    main()
