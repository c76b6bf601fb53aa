"""The layers that a run's settings choose, and what of the model they reach."""

from unlora import processes
from unlora.models.choose import Choice, choose_target_modules
from unlora.models.named_class import other_class
from unlora.models.wrapping import CausalModel, unwrap
from unlora.run.settings import AdapterSettings, ObjectiveSettings
from unlora.starts.start import Start

SHARED = "objective.separation looks at what the linear layers add, not at what the experts do."


def choose_targets(
    adapter: AdapterSettings, start: Start, model: CausalModel, objective: ObjectiveSettings | None = None
) -> Choice:
    """Choose the target modules of a run.

    Args:
        adapter: what the settings name and leave out.
        start: whose rank and needs decide what can have an adapter.
        model: the target.
        objective: what training asks of the layers; None where nothing is trained.

    Raises:
        InputError: as `choose_target_modules`.
    """
    by_example = objective is not None and objective.by_example
    choice = choose_target_modules(
        model,
        adapter.target_modules,
        exclude=adapter.exclude_modules,
        rank=start.rank_taken(adapter.rank),
        by_example=by_example or start.by_example,
        experts=start.takes_experts and processes.sharding() is None,
    )
    unseen = objective is not None and objective.separation > 0 and choice.reach.experts > 0
    notes = [other_class(unwrap(model)), SHARED if unseen else None]
    return choice._replace(reach=choice.reach.noting(*(note for note in notes if note is not None)))
