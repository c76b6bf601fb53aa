"""The layers that a run's settings choose, and what of the model they reach."""

from unlora.models.choose import Choice, choose_target_modules
from unlora.models.wrapping import CausalModel
from unlora.recipes.settings import CONTRAST, WEIGHTED, UnlearnSettings


def choose_targets(settings: UnlearnSettings, model: CausalModel) -> Choice:
    """Choose the target modules of a run.

    Raises:
        InputError: as `choose_target_modules`.
    """
    adapter, start = settings.adapter, settings.importance.initialisation
    return choose_target_modules(
        model,
        adapter.target_modules,
        exclude=adapter.exclude_modules,
        rank=2 * adapter.rank if start == "lora_ga" else adapter.rank,  # It takes 2r singular vectors.
        by_example=start in (*WEIGHTED, *CONTRAST, "reglu"),
    )
