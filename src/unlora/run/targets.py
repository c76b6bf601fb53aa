"""The layers that a run's settings choose, and what of the model they reach."""

from unlora import processes
from unlora.models.choose import Choice, choose_target_modules
from unlora.models.named_class import other_class
from unlora.models.wrapping import CausalModel, unwrap
from unlora.run.settings import AdapterSettings
from unlora.starts.start import Start


def choose_targets(adapter: AdapterSettings, start: Start, model: CausalModel, *, by_example: bool = False) -> Choice:
    """Choose the target modules of a run.

    Args:
        adapter: what the settings name and leave out.
        start: whose rank and needs decide what can have an adapter.
        model: the target.
        by_example: whether training, too, wants layers that keep the examples of a batch apart.

    Raises:
        InputError: as `choose_target_modules`.
    """
    choice = choose_target_modules(
        model,
        adapter.target_modules,
        exclude=adapter.exclude_modules,
        rank=start.rank_taken(adapter.rank),
        by_example=by_example or start.by_example,
        experts=start.takes_experts and processes.sharding() is None,
    )
    other = other_class(unwrap(model))
    return choice if other is None else choice._replace(reach=choice.reach.noting(other))
