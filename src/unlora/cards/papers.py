"""What lies beside the tensors of a run's adapter: for PEFT, for people, and for unlora itself."""

from typing import TypedDict

from unlora.cards.model_card import adapter_card
from unlora.cards.naming import base_model, name_target, origin_of
from unlora.models.load import LoadedModel
from unlora.models.origin import Origin
from unlora.run.folder import RunFolder
from unlora.run.settings import UnlearnSettings


class Papers(TypedDict):
    """Arguments of `save_trained_adapter`."""

    base_model: str | None
    card: str
    origin: Origin


def papers(settings: UnlearnSettings, run: RunFolder, target: LoadedModel) -> Papers:
    """What to write beside the adapter that a run has trained."""
    told = name_target(settings.model, run.adapter)
    return {
        "base_model": base_model(told),
        "card": adapter_card(settings, run.record, told),
        "origin": origin_of(target, told),
    }
