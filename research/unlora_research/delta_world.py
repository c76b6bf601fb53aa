"""A small world whose target is an adapter: a base that knows other people, and two adapters that know this world's."""

from pathlib import Path

from unlora.artifacts import write_text
from unlora.recipes.fine_tune import fine_tune
from unlora.run.settings import FineTuneSettings, ModelSettings
from unlora_research.attackers import QUICK, WORLD
from unlora_research.small_world import SmallWorld, SmallWorldFiles, build_small_world

OTHERS = 1000
"""Added to a world's seed for the people that the base knows."""


def build_adapter_world(folder: Path, seed: int, *, quick: bool = False) -> FineTuneSettings:
    """Write target/, retain_only/ and the sets into a folder, or find them there.

    Returns:
        How the two adapters were taught; as it stands, what makes the retain-only one.
    """
    changes = QUICK if quick else WORLD
    people = build_small_world(SmallWorld.from_mapping({"seed": seed, **changes}))
    base = build_small_world(SmallWorld.from_mapping({"seed": seed + OTHERS, **changes})).target
    _copy_sets(people, folder)
    lessons = people.forget.with_name("lessons.jsonl")
    taught = FineTuneSettings(
        model=ModelSettings(name=str(base), device="cpu", dtype="float32"),
        data=[str(lessons)],
        exclude=[str(people.forget.with_name("forget_lessons.jsonl"))],
        template="plain",
        max_length=256,
        rank=2 if quick else 32,
        alpha=4 if quick else 64,
        learning_rate=1e-2,
        epochs=1 if quick else 20,
        batch_size=32,
        seed=seed,
    )
    for name, exclude in (("target", []), ("retain_only", taught.exclude)):
        if not (folder / name / "adapter_config.json").is_file():
            fine_tune(taught.model_copy(update={"exclude": exclude}), folder / name)
    return taught


def _copy_sets(people: SmallWorldFiles, folder: Path) -> None:
    for file in (people.forget, people.retain, people.held_out):
        if not (folder / file.name).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / file.name, file.read_text(encoding="utf-8"))
