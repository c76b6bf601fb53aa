"""What makes forgetting deep: recipes at one level, what they keep, and what attackers bring back.

    python -m unlora_research.depth FOLDER --world SEED ... [--recipe NAME ...] [--quick]
    python -m unlora_research.depth FOLDER --data DIR [--recipe NAME ...] [--seed N ...] [--dtype D]
    python -m unlora_research.depth FOLDER --table

Every recipe is run by `unlora unlearn` with the retain-only model's forget probability as its level, so that rows
differ in where and how they forget and not in how far. Each is then attacked by all of `ATTACKERS`; those of
`CHOSEN_BY` chose the recipes, so the others are what counts. DIR is laid out as `tofu_mini_run` says (a real model);
learning rates are larger in a small world. Started again it goes on where it stopped.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import read_json
from unlora.audit.settings import RelearningSettings
from unlora.cli.terminal import echo
from unlora.data.records import ExampleSet
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError
from unlora.models.load import LoadedModel
from unlora.run.finished import run_settings
from unlora.run.loading import load
from unlora.run.reporter import SILENT
from unlora.run.settings import ModelSettings
from unlora_research.attackers import QUICK, RATE_SCALE, attack_model, probabilities_of, scaled
from unlora_research.depth_recipes import RECIPES, Recipe
from unlora_research.depth_table import print_table
from unlora_research.small_world import SmallWorld, build_small_world
from unlora_research.unlearning import small_world_run, tofu_mini_run, unlearn_from

CHOSEN_BY = ("lora_5e-4_few", "lora_5e-4_full")
"""Attackers that were looked at while recipes were chosen; what they find is no verdict."""

ATTACKERS = (*CHOSEN_BY, "lora_2e-4_few", "lora_2e-4_full", "full_1e-4_few", "full_1e-4_full", "full_1e-4_retain")

UNLEARNING_SCALE = 20.0
"""Of unlearning's learning rates in a small world over SmolLM2's: results/starts has the best ones of both."""


class Place(NamedTuple):
    """A target model with its control and data, and how it is attacked."""

    run: Mapping[str, Any]
    """Settings of a run, as `small_world_run` gives them."""
    scale: float
    """Of unlearning's learning rates over SmolLM2's."""
    attack_scale: float
    """Of the attackers'."""
    rank: int
    """Of wide recipes: 7 % of SmolLM2's width, an eighth of a small world's."""
    course: RelearningSettings


def main() -> None:
    """Parse, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--world", type=int, nargs="+", default=[], metavar="SEED")
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], metavar="N", help="of unlearning, with --data")
    parser.add_argument("--dtype", default="float32", help="of the weights, with --data; auto as in a run")
    parser.add_argument("--recipe", nargs="+", default=list(RECIPES), choices=list(RECIPES), metavar="NAME")
    parser.add_argument("--attacker", nargs="+", default=list(ATTACKERS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="a tiny world and one step, to see that it works")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    try:
        if not options.table:
            run_all(options)
        echo(print_table(options.folder, CHOSEN_BY))
    except InputError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def run_all(options: argparse.Namespace) -> None:
    """Everything that was asked for and is not there yet."""
    recipes = {name: RECIPES[name] for name in options.recipe}
    for seed in options.world:
        world = SmallWorld.from_mapping({"seed": seed, **(QUICK if options.quick else {})})
        settings = small_world_run(build_small_world(world), "cpu", epochs=1 if options.quick else None)
        course = RelearningSettings(steps=2 if options.quick else 24, measure_every=2 if options.quick else 4)
        place = Place(settings, UNLEARNING_SCALE, RATE_SCALE, world.hidden_size // 8, course)
        run_place(options.folder / f"world-{seed}", place, recipes, options.attacker, seed=seed)
    if options.data is not None:
        course = RelearningSettings(steps=20, measure_every=10)
        settings = tofu_mini_run(options.data, "cpu", epochs=None)
        settings["model"]["dtype"] = options.dtype
        place = Place(settings, 1.0, 1.0, 40, course)
        for seed in options.seed:
            run_place(options.folder / f"{options.data.name}-{seed}", place, recipes, options.attacker, seed=seed)


def run_place(
    folder: Path, place: Place, recipes: Mapping[str, Recipe], attackers: Sequence[str], *, seed: int
) -> None:
    """Unlearn by every recipe and attack what comes out and the control; a JSON file each."""
    sets = _sets(place)
    tried = scaled(attackers, place.attack_scale)
    control = _control(place)
    tokeniser = ExampleTokeniser(control.tokenizer, template="plain", max_length=256)
    attack_model(folder / "control.json", control.model, tokeniser, sets, tried, place.course)
    target = load(ModelSettings.from_mapping(place.run["model"])).model
    known = probabilities_of(target, tokeniser, sets[0])
    for name, recipe in recipes.items():
        file, run = folder / f"{name}.json", folder / "runs" / name
        changes = recipe.changes(scale=place.scale, rank=place.rank, seed=seed)
        if file.is_file() or not unlearn_from(recipe.preset, run, place.run, changes):
            continue
        loaded = load(run_settings(run, trust_remote_code=False, reporter=SILENT).model)
        model = load_trained_adapter(loaded.model, run / "adapter").eval()
        attack_model(file, model, tokeniser, sets, tried, place.course, target=known, **about_run(run))


def _sets(place: Place) -> tuple[ExampleSet, ExampleSet]:
    return load_examples(str(place.run["data"]["forget"])), load_examples(str(place.run["data"]["retain"]))


def _control(place: Place) -> LoadedModel:
    evaluation, model = place.run["evaluation"], place.run["model"]
    settings = {**model, "name": evaluation["retain_only"], "base": evaluation.get("retain_only_base")}
    return load(ModelSettings.from_mapping(settings))


def about_run(run: Path) -> dict[str, Any]:
    """What a finished run says about itself: level, strength, retain probability, seconds of its own."""
    record, models = read_json(run / "record.json"), read_json(run / "evaluation.json")["models"]
    stages = {name: stage["seconds"] for name, stage in record["stages"].items()}
    return {
        "level": record["level"],
        "kept": models["unlearned"]["metrics"]["retain_probability"]["value"],
        "knew": models["target"]["metrics"]["retain_probability"]["value"],
        "seconds": stages,
    }


if __name__ == "__main__":
    main()
