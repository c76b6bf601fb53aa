"""Where does a mixture forget: through its experts, through attention alone, or through the experts that are used?

    python -m unlora_research.experts FOLDER [--world SEED ...] [--recipe NAME ...] [--quick]
    python -m unlora_research.experts FOLDER --table

A mixture is trained from scratch on the people of a small world, and its control without those to forget. Each recipe
runs to the control's forget probability, so that rows differ in where they forget and not in how far, and is then
attacked (`unlora_research.depth` has the same of a dense model). Started again it goes on where it stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from unlora.audit.settings import RelearningSettings
from unlora.cli.terminal import echo
from unlora.errors import InputError
from unlora_research.attackers import RATE_SCALE
from unlora_research.depth import QUICK, UNLEARNING_SCALE, Place, run_place
from unlora_research.depth_recipes import Recipe
from unlora_research.depth_table import print_table
from unlora_research.small_world import build_small_world
from unlora_research.unlearning import small_world_run
from unlora_research.worlds import MixtureWorld

ATTACKERS = ("lora_5e-4_few", "full_1e-4_few", "full_1e-4_full")
"""LoRA attackers reach the linear layers alone; full ones everything, experts and routers with it."""

WORLD = {"people": 24, "forget_people": 4, "held_out_people": 4, "hidden_size": 96, "layers": 2, "epochs": 20}

RATE = 2e-4
RECIPES: dict[str, Recipe] = {
    "all": Recipe("default", RATE, wide=False),
    "attention": Recipe("default", RATE, {"adapter": {"exclude_modules": ["experts.*"]}}, wide=False),
    "used_experts": Recipe("default", RATE, {"adapter": {"expert_excess": 0.1}}, wide=False),
    "only_experts": Recipe("default", RATE, {"adapter": {"exclude_modules": ["self_attn.*"]}}, wide=False),
}
"""The default preset, which stops at the level, on: all that can have an adapter; all but the experts; attention and
the experts to which the forget set sends a tenth more of its tokens than the retain set; the experts alone."""


def main() -> None:
    """Parse, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--world", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--recipe", nargs="+", default=list(RECIPES), choices=list(RECIPES), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="a tiny world and one step, to see that it works")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    try:
        for seed in options.world if not options.table else []:
            run_world(options.folder / f"world-{seed}", seed, options.recipe, quick=options.quick)
        echo(print_table(options.folder, ()))
    except InputError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def run_world(folder: Path, seed: int, recipes: Sequence[str], *, quick: bool = False) -> None:
    """Unlearn one world's people by every recipe and attack what comes out; a JSON file each."""
    world = MixtureWorld.from_mapping({"seed": seed, **({**QUICK, "experts": 4} if quick else WORLD)})
    settings = small_world_run(build_small_world(world), "cpu", epochs=1 if quick else None)
    course = RelearningSettings(steps=2 if quick else 24, measure_every=2 if quick else 6)
    place = Place(settings, UNLEARNING_SCALE, RATE_SCALE, world.hidden_size // 8, course)
    chosen = {name: RECIPES[name] for name in recipes}
    run_place(folder, place, chosen, ATTACKERS[: 1 if quick else None], seed=seed)


if __name__ == "__main__":
    main()
