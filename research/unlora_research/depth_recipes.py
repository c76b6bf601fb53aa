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
    share: float = 1.0
    """Of that rank. Alpha is the rank: the start `selective` takes it out of A, so that it changes nothing."""

    def changes(self, *, scale: float, rank: int, seed: int) -> dict[str, Any]:
        """Settings laid over the preset's."""
        width = round(self.share * rank)
        common = {
            "training": {"learning_rate": self.rate * scale},
            "adapter": {"rank": width, "alpha": width} if self.wide else {},
            "level": {"aim": "control"},
            "seed": seed,
        }
        return laid_over(common, dict(self.settings))


WHOLE_TEXTS = {"objective": {"retain": "kl", "retain_parameters": {"prompts": True}, "retain_weight": 2.0}}
LARGE_STEPS = {"training": {"gradient_accumulation_steps": 2}}
STOP = {"level": {"stop": True}}
SAM, NEAR_SAM, FAR_SAM, ATTACKED = (
    {"training": {"trainer": f"unlora_research.{name}"}}
    for name in ("sam:SamTrainer", "sam:NearSamTrainer", "sam:FarSamTrainer", "attacked:AttackedTrainer")
)

RECIPES: dict[str, Recipe] = {
    "default": Recipe("default", 2e-4, wide=False),
    "default_narrow": Recipe("default", 2e-4, {"adapter": {"rank": 4}}, wide=False),
    "default_past": Recipe("default", 2e-4, {"level": {"stop": False}}, wide=False),
    "deep": Recipe("deep", 3.6e-4),
    "deep_at_once": Recipe("deep", 1.8e-4, {"objective": {"forget_strength": 1.0}}),
    "deep_alike": Recipe("deep", 3.6e-4, {"objective": {"separation": 0.0}}),
    "deep_leading": Recipe("deep", 3.6e-4, {"start": {"skip": 0.0}}),
    "deep_random": Recipe("deep", 3.6e-4, {"start": {"kind": "unlora_research.control_starts:RandomDirections"}}),
    "deep_past": Recipe("deep", 3.6e-4, {"level": {"stop": False}, "training": {"epochs": 12}}),
    "deep_damped": Recipe("deep", 3.6e-4, {"start": {"damping": 0.03}}),
    "deep_narrower": Recipe("deep", 3.6e-4, share=0.7),
    "deep_narrow": Recipe("deep", 3.6e-4, share=0.5),
    "deep_large": Recipe("deep", 3.6e-4, LARGE_STEPS),
    "deep_kl": Recipe("deep", 3.6e-4, WHOLE_TEXTS),
    "deep_kl_large": Recipe("deep", 3.6e-4, WHOLE_TEXTS | LARGE_STEPS),
    "npo": Recipe("npo", 2e-4, STOP, wide=False),
    "npo_sam": Recipe("npo", 2e-4, STOP | SAM, wide=False),
    "default_sam": Recipe("default", 2e-4, SAM, wide=False),
    "default_sam_near": Recipe("default", 2e-4, NEAR_SAM, wide=False),
    "default_sam_far": Recipe("default", 2e-4, FAR_SAM, wide=False),
    "deep_sam": Recipe("deep", 3.6e-4, SAM),
    "attacked": Recipe("default", 2e-4, ATTACKED, wide=False),
    "deep_attacked": Recipe("deep", 3.6e-4, ATTACKED),
}
"""`past` does not stop at the level, in 12 passes, and is scaled back to it; `at_once` has no reserve, and half the
rate, so that its forget term takes the same steps; `alike` has no separation; `leading` leaves nothing out; `random`
draws its directions; `damped` weighs the retain set's energy against less of a common floor; `kl` keeps by the
divergence from the target over prompt and answer; `large` has steps of twice as many pairs; `narrow` has half of the
rank; `npo` stops at the level as the others do; `sam` (`near`, `far`: at another rho) and `attacked` have a trainer of
the laboratory's own."""
