"""Which few attackers find nearly what all of them find, and does the gradients' agreement predict it?

    python -m unlora_research.attackers FOLDER [--world SEED ...] [--quick]
    python -m unlora_research.attackers FOLDER --table

Several starts unlearn the people of a small world; every attacker of `unlora.audit.attacker_table` is tried on each of
these models and on the world's retain-only model. Learning rates are `RATE_SCALE` times the table's: a small model
trained from scratch wants larger ones, for unlearning too. Started again it goes on where it stopped.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import read_json, write_json
from unlora.audit.agreement import gradient_cosines
from unlora.audit.attacker_table import ATTACKERS, make_attacker
from unlora.audit.attackers import Attacker
from unlora.audit.course import Trial, relearn
from unlora.audit.lessons import draw_lesson
from unlora.audit.settings import RelearningSettings
from unlora.cli.terminal import echo
from unlora.data.records import ExampleSet
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError, TrainingDivergedError
from unlora.models.load import load_model
from unlora.models.score import score_completions
from unlora.models.wrapping import CausalModel
from unlora_research.attacker_choice import print_tables
from unlora_research.small_world import SmallWorld, SmallWorldFiles, build_small_world
from unlora_research.unlearning import small_world_run, unlearn_from

RATE_SCALE = 8.0
"""Of unlearning's learning rates here over SmolLM2's, see results/starts."""

STARTS = {"contrast_inputs": 4e-3, "contrast": 2e-3, "marginal": 2e-3, "vila": 2e-3, "uniform": 2e-3, "plain": 8e-3}
"""Start -> the learning rate that suits it in a small world (results/starts)."""

EPOCHS = 8
"""Of unlearning."""

WORLD = {"people": 32, "forget_people": 5, "held_out_people": 5, "hidden_size": 96, "layers": 3, "epochs": 20}
QUICK = {"people": 8, "forget_people": 2, "held_out_people": 2, "hidden_size": 32, "layers": 1, "epochs": 2}
COURSE = RelearningSettings(steps=24, measure_every=4)


def main() -> None:
    """Parse, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--world", type=int, nargs="+", default=[0], metavar="SEED")
    parser.add_argument("--start", nargs="+", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--quick", action="store_true", help="a tiny world and four attackers, to see that it works")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    try:
        for seed in options.world if not options.table else []:
            run_world(options.folder / f"world-{seed}", seed, options.start, quick=options.quick)
        echo(print_tables(read_records(options.folder)))
    except InputError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def run_world(folder: Path, seed: int, starts: Sequence[str], *, quick: bool = False) -> None:
    """Unlearn and attack everything in one world; a JSON file each model."""
    world = SmallWorld.from_mapping({"seed": seed, **(QUICK if quick else WORLD)})
    files = build_small_world(world)
    attackers = list(ATTACKERS)[:: 7 if quick else 1]
    control = load_model(str(files.retain_only), device=torch.device("cpu"))
    tokeniser = ExampleTokeniser(control.tokenizer, template="plain", max_length=128)
    sets = load_examples(str(files.forget)), load_examples(str(files.retain))
    attack_model(folder / "control.json", control.model, tokeniser, sets, scaled(attackers), COURSE)
    target = load_model(str(files.target), device=torch.device("cpu")).model
    probabilities = probabilities_of(target, tokeniser, sets[0])
    for start in starts:
        file = folder / f"{start}.json"
        if not file.is_file():
            model = _unlearned(folder / "runs" / start, files, start, seed)
            attack_model(file, model, tokeniser, sets, scaled(attackers), COURSE, target=probabilities)


def _unlearned(run: Path, files: SmallWorldFiles, start: str, seed: int) -> CausalModel:
    if not (run / "evaluation.json").is_file():
        changes = {"training": {"learning_rate": STARTS[start]}, "seed": seed}
        unlearn_from(start, run, small_world_run(files, "cpu", epochs=EPOCHS), changes)
    loaded = load_model(str(files.target), device=torch.device("cpu"))
    return load_trained_adapter(loaded.model, run / "adapter").eval()


def attack_model(
    file: Path,
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    sets: tuple[ExampleSet, ExampleSet],
    attackers: Mapping[str, Attacker],
    course: RelearningSettings,
    **about: Any,
) -> None:
    """Try attackers on one model, look at its gradients, and keep all of it in `file`.

    Args:
        file: JSON; where it is there already, nothing is done.
        model: unlearned, or the control.
        tokeniser: of the model.
        sets: forget and retain.
        attackers: by the names they are to have.
        course: steps, batch size, how often is measured.
        about: further entries of the file.
    """
    if file.is_file():
        return
    forget, retain = sets
    record: dict[str, Any] = {"probability": probabilities_of(model, tokeniser, forget), "courses": {}, **about}
    tokens = tokeniser.encode_set(forget)
    cosines = gradient_cosines(model, tokens, pad_token_id=tokeniser.pad_token_id)
    record["cosines"] = np.round(cosines, 4).tolist()
    for name, attacker in attackers.items():
        lesson = draw_lesson(attacker.learns_from, forget, retain, fraction=course.fraction, seed=0)
        try:
            found = relearn(model, tokeniser, Trial(lesson.examples, forget, attacker), course, batch_size=64)
        except TrainingDivergedError:
            record["courses"][name] = None
            continue
        record["courses"][name] = {
            "steps": list(found.steps),
            "tested": list(lesson.tested),
            "probability": np.round(found.probability, 4).tolist(),
        }
    write_json(file, record)


def scaled(names: Sequence[str], scale: float = RATE_SCALE) -> dict[str, Attacker]:
    """Attackers of the table, at the learning rates that suit a model."""
    attackers = {name: make_attacker(name) for name in names}
    return {
        name: dataclasses.replace(attacker, learning_rate=scale * attacker.learning_rate)
        for name, attacker in attackers.items()
    }


def read_records(folder: Path) -> dict[str, dict[str, Mapping[str, Any]]]:
    """World -> model ("control", or its start) -> its record."""
    worlds = {
        path.name: {file.stem: read_json(file) for file in sorted(path.glob("*.json"))}
        for path in sorted(folder.glob("world-*"))
    }
    if not any("control" in models for models in worlds.values()):
        raise InputError(f"{folder}: holds no finished world of this study.")
    return worlds


def probabilities_of(model: CausalModel, tokeniser: ExampleTokeniser, examples: ExampleSet) -> list[float]:
    """Forget probability of every example, in order; what `unlora audit` and the level call so."""
    sequences = [(one.input_ids, one.prompt_length) for one in tokeniser.encode_set(examples)]
    scores = score_completions(model, sequences, pad_token_id=tokeniser.pad_token_id, batch_size=64)
    return [round(score.probability, 4) for score in scores]


if __name__ == "__main__":
    main()
