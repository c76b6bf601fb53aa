"""The recipes that are compared for depth: each differs from `deep` in one thing, or is what people run today."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from unlora.run.presets import laid_over


class Recipe(NamedTuple):
    """What a row of the table is."""

    preset: str
    """A preset, or a start laid over the default preset."""
    rate: float
    """Learning rate on SmolLM2; a small world multiplies it."""
    settings: Mapping[str, Any] = {}
    wide: bool = True
    """With the rank of the place."""

    def changes(self, *, scale: float, rank: int, seed: int) -> dict[str, Any]:
        """Settings laid over the preset's."""
        common = {
            "training": {"learning_rate": self.rate * scale},
            "adapter": {"rank": rank, "alpha": rank} if self.wide else {},
            "level": {"aim": "control"},
            "seed": seed,
        }
        return laid_over(common, dict(self.settings))


RECIPES: dict[str, Recipe] = {
    "default": Recipe("default", 2e-4, wide=False),
    "default_past": Recipe("default", 2e-4, {"level": {"stop": False}}, wide=False),
    "deep": Recipe("deep", 4e-4),
    "deep_at_once": Recipe("deep", 2e-4, {"objective": {"forget_strength": 1.0}}),
    "deep_alike": Recipe("deep", 4e-4, {"objective": {"separation": 0.0}}),
    "deep_leading": Recipe("deep", 4e-4, {"start": {"skip": 0.0}}),
    "deep_past": Recipe("deep", 4e-4, {"level": {"stop": False}}),
}
"""`past` does not stop at the level, and is scaled back to it; `at_once` has no reserve, and half the rate, so that its
forget term takes the same steps; `alike` has no separation; `leading` leaves nothing out."""
