"""What is tried: the theorem in every world, and unlearning there with an adapter in some of the layers."""

from typing import Literal

from pydantic import Field, NonNegativeInt

from unlora.config import Config
from unlora_research.assumptions.factors import DISTRIBUTIONS
from unlora_research.fields import Rates
from unlora_research.small_world import SmallWorld

COVERAGES: dict[str, str] = {"all": "all layers", "top": "top 25 % by importance", "random": "random 25 %"}
COVERAGE = 0.25
RANK, SCALING = 8, 2.0
"""Of the adapter, and of the factors where the rank is not varied."""


class AssumptionsSettings(Config):
    """The grid."""

    world: SmallWorld = SmallWorld()
    """Of seed 0; other seeds change its seed."""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0, 1, 2), min_length=1)
    """Of world, factors and training."""
    distributions: tuple[str, ...] = tuple(DISTRIBUTIONS)
    """Of the factors' entries."""
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Columns of the factors."""
    sigmas: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4)
    """Standard deviations of Gaussian factors, virtual and inserted into the model."""
    draws: int = Field(default=3, ge=1)
    """Of the factors, averaged over."""
    coverages: tuple[str, ...] = tuple(COVERAGES)
    """Which layers get an adapter."""
    learning_rates: Rates = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
    """Searched for every coverage."""
    epochs: int = Field(default=5, ge=1)
    """Of unlearning."""


class AssumptionsCell(Config):
    """The theorem in one world, or unlearning with one choice of layers in it."""

    part: Literal["theorem", "coverage"]
    layers: str | None
    seed: int
    world: SmallWorld
    distributions: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    sigmas: tuple[float, ...] = ()
    draws: int = 1
    learning_rates: tuple[float, ...] = ()
    epochs: int | None = None


def cells(settings: AssumptionsSettings) -> list[AssumptionsCell]:
    """One cell a world for the theorem, one for each choice of layers."""
    found = []
    for seed in settings.seeds:
        world = settings.world.model_copy(update={"seed": seed})
        found.append(
            AssumptionsCell(
                part="theorem",
                layers=None,
                seed=seed,
                world=world,
                distributions=settings.distributions,
                ranks=settings.ranks,
                sigmas=settings.sigmas,
                draws=settings.draws,
            )
        )
        found += [
            AssumptionsCell(
                part="coverage",
                layers=layers,
                seed=seed,
                world=world,
                learning_rates=settings.learning_rates,
                epochs=settings.epochs,
            )
            for layers in settings.coverages
        ]
    return found
