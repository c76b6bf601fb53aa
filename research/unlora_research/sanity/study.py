"""The grid of the study, and what a cell does."""

from pydantic import Field, NonNegativeInt

from unlora.config import Config
from unlora_research.engine import Row, Study, Workplace
from unlora_research.measuring import MeasuredModel, Questions
from unlora_research.sanity.figures import figures
from unlora_research.sanity.forget_sets import shifted_sets
from unlora_research.sanity.knowledge import told
from unlora_research.sanity.location import located
from unlora_research.sanity.names import EVERYWHERE, Kind
from unlora_research.sanity.rankings import rank_rows
from unlora_research.sanity.rows import highest_rows, linear_weights, put_back
from unlora_research.sanity.summary import summary
from unlora_research.small_world import (
    TINY_WORLD,
    Curriculum,
    SmallWorld,
    build_small_world,
    learn_further,
    lessons,
    world_people,
)

RETAIN_EXAMPLES, BATCH_SIZE = 64, 16
"""What maps are measured on."""


class SanitySettings(Config):
    """The grid."""

    world: SmallWorld = SmallWorld()
    """Its retain-only model is what the forget set is taught to; seeds change its seed."""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0, 1, 2), min_length=1)
    """Of world, training and maps."""
    kinds: tuple[Kind, ...] = ("topic", "template", "token")
    """How the forget set differs from what the model knows."""
    places: tuple[str, ...] = (EVERYWHERE, "layers.0.mlp", "layers.3.mlp")
    """Which linear layers may change while the forget set is learnt: all, or those below a name."""
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    """Of all rows of all linear layers, put back."""
    epochs: int = Field(default=10, ge=1)
    """Of the forget set."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Where all layers learn; one layer alone learns with three times as much."""


class SanityCell(Config):
    """One forget set, learnt in one place."""

    kind: Kind
    place: str
    seed: int
    world: SmallWorld
    shares: tuple[float, ...]
    epochs: int
    learning_rate: float


def cells(settings: SanitySettings) -> list[SanityCell]:
    """All combinations."""
    return [
        SanityCell(
            kind=kind,
            place=place,
            seed=seed,
            world=settings.world.model_copy(update={"seed": seed}),
            shares=settings.shares,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate * (1 if place == EVERYWHERE else 3),
        )
        for seed in settings.seeds
        for place in settings.places
        for kind in settings.kinds
    ]


def run(cell: SanityCell, place: Workplace) -> list[Row]:
    """Teach the forget set, rank the rows in every way, and put the highest back; a row a ranking and share."""
    people = world_people(cell.world)
    sets = shifted_sets(cell.kind, people)
    measured = MeasuredModel.load(build_small_world(cell.world).retain_only, place.device)
    model, tokeniser = measured
    pad = tokeniser.pad_token_id
    questions = Questions(tokeniser.encode_set(sets.forget), tokeniser.encode_set(people.held_out[::2]), pad)
    before, known_before = linear_weights(model), questions.ask(model)
    lesson = Curriculum(
        tokeniser.encode_set(sets.lessons),
        tokeniser.encode_set(taught for one in (*people.held_out, *sets.retain) for taught in lessons(one)),
        epochs=cell.epochs,
        learning_rate=cell.learning_rate,
        seed=cell.seed,
        parts=None if cell.place == EVERYWHERE else [f"{cell.place}.*"],
    )
    learn_further(model, lesson, pad_token_id=pad, folder=place.folder / "trainer")
    after, known_after = linear_weights(model), questions.ask(model)
    forget, retain = (measured.batches(one, BATCH_SIZE) for one in (sets.forget, sets.retain[:RETAIN_EXAMPLES]))
    rows: list[Row] = []
    for name, ranking in rank_rows(model, forget, retain, before, cell.seed).items():
        about: Row = {"ranking": name, **located(ranking, before, after)}
        for share in cell.shares:
            put_back(model, before, highest_rows(ranking.rows, share))
            rows.append(about | {"share": share, **told(questions.ask(model), known_before, known_after)})
            put_back(model, after)
    return rows


STUDY = Study(
    name="sanity",
    settings=SanitySettings,
    quick={
        "world": TINY_WORLD.model_dump(),
        "seeds": [0],
        "kinds": ["token"],
        "places": [EVERYWHERE, "layers.0.mlp"],
        "shares": [0.3],
        "epochs": 4,
        "learning_rate": 3e-3,
    },
    cells=cells,
    run=run,
    summary=summary,
    figures=figures,
)
