"""The recipes that are compared for depth: each differs from another in one thing."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from unlora.run.presets import laid_over


class Recipe(NamedTuple):
    """What a row of the table is."""

    start: str
    """Laid over the default preset."""
    rate: float
    """Learning rate on SmolLM2; a small world multiplies it."""
    epochs: int
    settings: Mapping[str, Any] = {}
    wide: bool = False
    """With the rank of the place in place of the default preset's."""

    def changes(self, *, scale: float, rank: int, seed: int) -> dict[str, Any]:
        """Settings laid over the default preset's."""
        common = {
            "training": {"learning_rate": self.rate * scale, "epochs": self.epochs},
            "adapter": {"rank": rank, "alpha": rank} if self.wide else {},
            "level": {"aim": "control", "most": 4.0},
            "seed": seed,
        }
        return laid_over(common, dict(self.settings))


def _wide(
    rate: float,
    epochs: int = 8,
    *,
    weight: float = 3.0,
    separation: float = 0.0,
    forget_strength: float = 1.0,
    **start: Any,
) -> Recipe:
    objective = {"retain_weight": weight, "separation": separation, "forget_strength": forget_strength}
    return Recipe("selective", rate, epochs, {"start": start, "objective": objective}, wide=True)


RECIPES: dict[str, Recipe] = {
    "default": Recipe("contrast_inputs", 2e-4, 5),
    "default_reserve": Recipe("contrast_inputs", 4e-4, 5, {"objective": {"forget_strength": 0.5}}),
    "plain": Recipe("plain", 1e-3, 5),
    "leading": _wide(2e-4, skip=0.0),
    "leading_reserve": _wide(4e-4, separation=1.0, forget_strength=0.5, skip=0.0),
    "minor": _wide(2e-4),
    "minor_reserve": _wide(4e-4, forget_strength=0.5),
    "separation": _wide(2e-4, separation=1.0),
    "reserve": _wide(4e-4, separation=1.0, forget_strength=0.5),
    "reserve_third": _wide(6e-4, separation=1.0, forget_strength=1 / 3),
}
"""`default` and `plain` as people run them; `leading` is the control of `minor`: as wide, nothing left out. The reserve
is `objective.forget_strength`, at a rate that gives the forget term the same steps."""
