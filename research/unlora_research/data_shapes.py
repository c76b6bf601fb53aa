"""Does the default preset reach its level on records of any shape, documents among them?

    python -m unlora_research.data_shapes FOLDER [--world SEED ...] [--shape NAME ...] [--recipe NAME ...] [--quick]

The people of a small world are written in each of the four shapes of docs/guide/records.md: questions with answers,
verbatim prompts with completions, turns of a chat, and plain documents, one a person. A model is trained from scratch
on each, and its control without those to forget; recipes of `unlora_research.depth` run to the control's level and are
attacked. Started again it goes on where it stopped.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from unlora.artifacts import write_text
from unlora.audit.settings import RelearningSettings
from unlora.cli.terminal import echo
from unlora.data.records import Example, ExampleSet
from unlora.errors import InputError
from unlora.models.save import save_model
from unlora.recipes.fine_tune import fine_tune
from unlora.run.settings import FineTuneSettings, ModelSettings
from unlora_research.attackers import RATE_SCALE, WORLD
from unlora_research.depth import QUICK, UNLEARNING_SCALE, Place, run_place
from unlora_research.depth_recipes import RECIPES
from unlora_research.depth_table import print_table
from unlora_research.small_world import (
    END,
    SmallWorld,
    SmallWorldFiles,
    lessons,
    train_tokenizer,
    untrained_model,
    world_people,
)
from unlora_research.unlearning import small_world_run

ATTACKERS = ("lora_2e-4_few", "full_1e-4_few", "full_1e-4_full")
CHAT_TEMPLATE = (
    "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}"
    f"{{% if turn.role == 'assistant' %}}{END}{{% endif %}}\n{{% endfor %}}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)

Line = dict[str, Any]


def questions(examples: Iterable[Example]) -> list[Line]:
    """A question and its answer a line."""
    return [{"question": one.prompt, "answer": one.completion} for one in examples]


def completions(examples: Iterable[Example]) -> list[Line]:
    """Verbatim text, of which the end is scored."""
    return [{"prompt": f"Q: {one.prompt}\nA:", "completion": f" {one.completion}"} for one in examples]


def chats(examples: Iterable[Example]) -> list[Line]:
    """Two turns a line."""
    return [
        {
            "messages": [
                {"role": "user", "content": one.prompt},
                {"role": "assistant", "content": one.completion},
            ]
        }
        for one in examples
    ]


def documents(examples: Iterable[Example]) -> list[Line]:
    """All that is known about a person in one text, all of it scored."""
    people = groupby(examples, key=lambda one: one.person)
    return [{"text": " ".join(one.completion for one in about)} for _, about in people]


SHAPES: dict[str, Callable[[Iterable[Example]], list[Line]]] = {
    "question_answer": questions,
    "prompt_completion": completions,
    "messages": chats,
    "text": documents,
}


def main() -> None:
    """Parse, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--world", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), choices=list(SHAPES), metavar="NAME")
    parser.add_argument("--recipe", nargs="+", default=["default", "deep"], choices=list(RECIPES), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="a tiny world and one step, to see that it works")
    options = parser.parse_args()
    try:
        for shape in options.shape:
            for seed in options.world:
                run_world(options.folder / shape, shape, seed, options.recipe, quick=options.quick)
            echo(f"{shape}\n\n{print_table(options.folder / shape, ())}\n")
    except InputError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def run_world(folder: Path, shape: str, seed: int, recipes: list[str], *, quick: bool = False) -> None:
    """Unlearn one world's people, written in one shape, and attack what comes out; a JSON file each."""
    world = SmallWorld.from_mapping({"seed": seed, **(QUICK if quick else WORLD)})
    place = folder / f"world-{seed}"
    settings = small_world_run(teach(world, shape, place / "models"), "cpu", epochs=1 if quick else None)
    course = RelearningSettings(steps=2 if quick else 24, measure_every=2 if quick else 6)
    where = Place(settings, UNLEARNING_SCALE, RATE_SCALE, world.hidden_size // 8, course)
    chosen = {name: RECIPES[name] for name in recipes}
    run_place(place, where, chosen, ATTACKERS[: 1 if quick else None], seed=seed)


def teach(world: SmallWorld, shape: str, folder: Path) -> SmallWorldFiles:
    """Write the people of a world in a shape, and train its target and its control on that."""
    people, write = world_people(world), SHAPES[shape]
    files = SmallWorldFiles(
        folder / "target",
        folder / "retain_only",
        *(folder / f"{part}.jsonl" for part in ("forget", "retain", "held_out")),
    )
    for part, examples in people._asdict().items():
        _write(getattr(files, part), write(examples))
    known = (*people.held_out, *people.retain)
    start = folder / "untrained"
    if not (start / "config.json").is_file():
        tokenizer = train_tokenizer(ExampleSet("people", (*people.forget, *known)), world.vocabulary)
        tokenizer.chat_template = CHAT_TEMPLATE if shape == "messages" else None
        save_model(untrained_model(world, tokenizer), tokenizer, start)
    for model, taught in ((files.target, (*people.forget, *known)), (files.retain_only, known)):
        both = zip(*map(lessons, taught), strict=True)
        _write(folder / f"{model.name}.jsonl", [line for wording in both for line in write(wording)])
        if not (model / "config.json").is_file():
            learn = FineTuneSettings(
                model=ModelSettings(name=str(start), dtype="float32", device="cpu"),
                data=[str(folder / f"{model.name}.jsonl")],
                template="plain",
                max_length=256,
                method="full",
                learning_rate=world.learning_rate,
                epochs=world.epochs,
                # Documents are a sixth as many as the questions they answer, and take as many steps.
                batch_size=world.batch_size if shape != "text" else max(1, world.batch_size // 6),
                seed=world.seed,
            )
            fine_tune(learn, model)
    return files


def _write(path: Path, lines: list[Line]) -> None:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
