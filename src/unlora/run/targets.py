"""The layers that a run's settings choose, and what of the model they reach."""

import math

from transformers import PreTrainedModel

from unlora import processes
from unlora.errors import InputError
from unlora.importance.routing import routing_shares, used_more
from unlora.models.choose import LITTLE_USED, Choice, choose_target_modules, narrowed
from unlora.models.experts import ExpertModule
from unlora.models.named_class import deaf_class, other_class
from unlora.models.wrapping import CausalModel, unwrap
from unlora.run.reporter import Reporter
from unlora.run.settings import AdapterSettings, ObjectiveSettings
from unlora.starts.start import Start, StartData

ROUTING_BATCH, MOST_RETAINED = 16, 512
"""Examples in a batch, and of the retain set, that the routing is read on."""

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
    holders = {
        one.parameter.rpartition(".")[0] if isinstance(one, ExpertModule) else name
        for name, one in choice.targets.items()
    }
    plain = unwrap(model)
    notes = [other_class(plain), deaf_class(plain, holders), SHARED if unseen else None]
    return choice._replace(reach=choice.reach.noting(*(note for note in notes if note is not None)))


def narrow_to_used(
    choice: Choice, adapter: AdapterSettings, model: PreTrainedModel, data: StartData, reporter: Reporter
) -> Choice:
    """Leave out the experts that the forget set uses no more than the retain set does, as `adapter.expert_excess` says.

    Raises:
        InputError: the setting is given, and there are no experts to choose from, no retain set to compare with, or no
            expert is left that the forget set uses so much more.
    """
    if adapter.expert_excess is None:
        return choice
    experts = {name: one for name, one in choice.targets.items() if isinstance(one, ExpertModule)}
    retain = data.retain_batches(ROUTING_BATCH, MOST_RETAINED)
    if not experts:
        raise InputError("adapter.expert_excess: no expert of this model is among what can get an adapter.")
    if retain is None:
        raise InputError("adapter.expert_excess: compares with the retain set; give one (--retain).")
    forget = routing_shares(model, experts, data.forget_batches(ROUTING_BATCH))
    retained = routing_shares(model, experts, retain)
    kept = used_more(forget, retained, adapter.expert_excess)
    if not kept:
        most = max((forget[name] / share for name, share in retained.items() if share), default=math.inf)
        raise InputError(
            f"adapter.expert_excess: {adapter.expert_excess:g} leaves no expert; the one that the forget set uses most "
            f"has {most:.2f} times the retain set's share."
        )
    reporter.say(f"Experts that the forget set uses more than the retain set: {len(kept)} of {len(experts)} matrices")
    others = {name for name in choice.targets if name not in experts}
    return narrowed(model, choice, kept | others, LITTLE_USED)
