"""What is tried: what replaces how much of the forget set, learnt or not, and what unlearning starts from."""

from typing import Any

from pydantic import Field, NonNegativeInt

from unlora.config import Config
from unlora_research.small_world import SmallWorld

KINDS: dict[str, str] = {
    "none": "nothing replaced",
    "other_facts": "same people, other facts",
    "other_people": "other people, same questions",
    "other_text": "general knowledge",
}
STATE = {True: "taught", False: "never seen"}
STARTS: dict[str, dict[str, Any]] = {
    "variance": {"kind": "marginal"},
    "second_moment": {"kind": "marginal", "statistic": "second_moment"},
    "shuffled": {"kind": "shuffled"},
    "uniform": {"kind": "uniform"},
}
"""Sections `start`."""


class ShiftSettings(Config):
    """The grid."""

    world: SmallWorld = SmallWorld()
    """Of seed 0; other seeds change its seed."""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0, 1, 2), min_length=1)
    """Of world, choice of text and training."""
    kinds: tuple[str, ...] = ("other_facts", "other_people", "other_text")
    """What replaces examples of the forget set."""
    shares_unseen: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Share of the forget set that is replaced by text that the target never saw."""
    shares_learnt: tuple[float, ...] = (1.0,)
    """The same by text that the target has learnt."""
    shares_unlearnt: tuple[float, ...] = (0.5,)
    """Shares never seen at which the starts are tried out, as they are where nothing is replaced; below 1, because
    there must be something to forget."""
    starts: tuple[str, ...] = tuple(STARTS)
    """What the adapter starts from."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Of unlearning, for every start: they have factors of the same size."""
    epochs: int = Field(default=5, ge=1)
    """Of unlearning."""
    lesson_epochs: int = Field(default=10, ge=1)
    """Of teaching the target other text."""
    lesson_rate: float = Field(default=1e-3, gt=0)
    """Of the same."""


class ShiftCell(Config):
    """One forget set and its target."""

    kind: str
    share: float
    learnt: bool
    seed: int
    world: SmallWorld
    starts: tuple[str, ...]
    learning_rate: float
    epochs: int
    lesson_epochs: int
    lesson_rate: float


def cells(settings: ShiftSettings) -> list[ShiftCell]:
    """The forget set as it is, then every kind and share, learnt and not, seed by seed; what is quick comes first."""
    mixtures = [("none", 0.0, True)]
    for kind in settings.kinds:
        mixtures += [(kind, share, True) for share in settings.shares_learnt]
        mixtures += [(kind, share, False) for share in settings.shares_unseen]
    unlearnt = {("none", 0.0, True)} | {
        (kind, share, False) for kind in settings.kinds for share in settings.shares_unlearnt if share < 1
    }
    grid = [
        ShiftCell(
            kind=kind,
            share=share,
            learnt=learnt,
            seed=seed,
            world=settings.world.model_copy(update={"seed": seed}),
            starts=settings.starts if (kind, share, learnt) in unlearnt else (),
            learning_rate=settings.learning_rate,
            epochs=settings.epochs,
            lesson_epochs=settings.lesson_epochs,
            lesson_rate=settings.lesson_rate,
        )
        for seed in settings.seeds
        for kind, share, learnt in mixtures
    ]
    return sorted(grid, key=lambda cell: len(cell.starts))
