"""The layers that a run's settings choose, and what of the model they reach."""

from unlora.models.choose import Choice, choose_target_modules
from unlora.models.named_class import other_class
from unlora.models.wrapping import CausalModel, unwrap
from unlora.recipes.settings import CONTRAST, WEIGHTED, UnlearnSettings


def choose_targets(settings: UnlearnSettings, model: CausalModel) -> Choice:
    """Choose the target modules of a run.

    Raises:
        InputError: as `choose_target_modules`.
    """
    adapter, start = settings.adapter, settings.importance.initialisation
    choice = choose_target_modules(
        model,
        adapter.target_modules,
        exclude=adapter.exclude_modules,
        rank=2 * adapter.rank if start == "lora_ga" else adapter.rank,  # It takes 2r singular vectors.
        by_example=start in (*WEIGHTED, *CONTRAST, "reglu"),
    )
    other = other_class(unwrap(model))
    return choice if other is None else choice._replace(reach=choice.reach.noting(other))
