"""The grid of the study, and what a cell does."""

from typing import Any

from pydantic import Field, NonNegativeInt

from unlora.config import Config
from unlora.data.records import ExampleSet
from unlora.data.user_jsonl import to_jsonl
from unlora_research.engine import Row, Study, Workplace
from unlora_research.fields import Presets, Rates
from unlora_research.measuring import MeasuredModel
from unlora_research.retain_free.figures import figures
from unlora_research.retain_free.maps import RANK, measure_map
from unlora_research.retain_free.names import CONTROLS, METHODS, SOURCES
from unlora_research.retain_free.sources import Stock, gradient_sets, own_samples
from unlora_research.retain_free.summary import summary
from unlora_research.small_world import TINY_WORLD, SmallWorld, build_small_world, world_people
from unlora_research.unlearning import small_world_run, unlearn_at_rates

SCALING = 2.0


class RetainFreeSettings(Config):
    """The grid."""

    world: SmallWorld = SmallWorld()
    """Of seed 0; other seeds change its seed."""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0, 1, 2), min_length=1)
    """Of world, samples and training."""
    methods: Presets = METHODS
    """Presets that measure."""
    sources: tuple[str, ...] = tuple(SOURCES)
    """What each divides by, while training has the retain set."""
    without: tuple[str, ...] = ("plain", "uniform", "marginal", "contrast", "contrast_inputs")
    """Starts that are also tried without any retain set: importance and training from the model's own samples."""
    examples: int = Field(default=64, ge=2)
    """Of every set that is divided by."""
    learning_rates: Rates = (4e-3, 8e-3)
    """Searched for every start and source."""
    rates_without: Rates = (2e-3, 4e-3, 8e-3, 1.6e-2)
    """Searched where training has no retain set either: its retain term is another one there."""
    epochs: int = Field(default=5, ge=1)
    """Of unlearning."""


class RetainFreeCell(Config):
    """One start in one world, over all learning rates."""

    start: str
    source: str | None
    """None for controls."""
    training: str
    seed: int
    world: SmallWorld
    examples: int
    learning_rates: tuple[float, ...]
    epochs: int


def cells(settings: RetainFreeSettings) -> list[RetainFreeCell]:
    """World by world: controls, every method and source, then what has no retain set at all."""
    grid = [(start, None, "retain") for start in CONTROLS]
    grid += [(method, source, "retain") for method in settings.methods for source in settings.sources]
    grid += [(start, None if start in CONTROLS else "own_samples", "own_samples") for start in settings.without]
    return [
        RetainFreeCell(
            start=start,
            source=source,
            training=training,
            seed=seed,
            world=settings.world.model_copy(update={"seed": seed}),
            examples=settings.examples,
            learning_rates=settings.learning_rates if training == "retain" else settings.rates_without,
            epochs=settings.epochs,
        )
        for seed in settings.seeds
        for start, source, training in grid
    ]


def run(cell: RetainFreeCell, place: Workplace) -> list[Row]:
    """Measure, compare with the map that the retain set gives, and unlearn; a row a learning rate."""
    files, people = build_small_world(cell.world), world_people(cell.world)
    target = MeasuredModel.load(files.target, place.device)
    own, dropped = own_samples(target, people.forget, cell.examples, cell.seed)
    changes: dict[str, Any] = {"adapter": {"rank": RANK, "alpha": SCALING * RANK}}
    found: Row = {"samples_dropped": dropped}
    if cell.source is not None:
        stock = Stock(target, people, own, files.retain_only)
        sets = gradient_sets(cell.source, stock, count=cell.examples, seed=cell.seed)
        measured, found["agreement"] = measure_map(cell.start, sets, cell.seed)
        file = place.folder / "measured.safetensors"
        measured.save(file)
        changes["importance"] = {"file": str(file)}
    if cell.training == "own_samples":
        samples = place.folder / "own_samples.jsonl"
        to_jsonl(ExampleSet("own samples", tuple(own)), samples)
        changes["data"] = {"retain": str(samples)}
    base = small_world_run(files, place.device, epochs=cell.epochs)
    rows = unlearn_at_rates(base, cell.start, changes, cell.learning_rates, cell.seed, place)
    return [{**found, **row} for row in rows]


STUDY = Study(
    name="retain_free",
    settings=RetainFreeSettings,
    quick={
        "world": TINY_WORLD.model_dump(),
        "seeds": [0],
        "methods": ["contrast_inputs"],
        "sources": ["retain", "base"],
        "without": ["contrast_inputs"],
        "examples": 4,
        "learning_rates": [8e-3],
        "rates_without": [8e-3],
        "epochs": 1,
    },
    cells=cells,
    run=run,
    summary=summary,
    figures=figures,
)
