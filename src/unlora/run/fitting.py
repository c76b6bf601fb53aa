"""Whether an adapter belongs to the model that it is put on; one that does not gives numbers that mean nothing."""

from pathlib import Path

import torch
from peft import PeftModel

from unlora.adapters.export import load_trained_adapter
from unlora.errors import InputError
from unlora.models.fingerprint import fingerprint
from unlora.models.load import LoadedModel
from unlora.models.merge import changes_nothing
from unlora.models.origin import Origin, read_origin
from unlora.run.finished import refuse_changed_adapter
from unlora.run.loading import load
from unlora.run.reporter import Reporter
from unlora.run.settings import ModelSettings

UNKNOWN = "unknown"
SAME = "the same weights"


def put_on(target: LoadedModel, folder: Path, settings: ModelSettings, reporter: Reporter) -> tuple[PeftModel, str]:
    """Put an adapter on a loaded model, after a look at whether it was made for it.

    Args:
        target: the model; its weights stay what they are.
        folder: of the adapter. One in a run folder must be the one that the run's record speaks of.
        settings: from which `target` was loaded.
        reporter: told where that cannot be known.

    Returns:
        The model with the adapter switched on, and how far it is known that they belong together, for a record.

    Raises:
        InputError: an adapter of another model, one that was exchanged, one that does not fit, or one that changes the
            base's own weights when it is put on.
    """
    if folder.name == "adapter" and all((folder.parent / name).is_file() for name in ("config.yaml", "record.json")):
        refuse_changed_adapter(folder.parent)
    known = _made_for(target, folder, settings, reporter)
    before = target.fingerprint
    model = load_trained_adapter(target.model, folder)
    if fingerprint(model) != before:
        raise InputError(
            f"{folder}: changes the base's own weights when it is put on, so that with it off the model is no longer "
            "the target; give it as --model, which merges it."
        )
    if changes_nothing(model):
        reporter.say(f"{folder}: this adapter changes nothing; with it the model is the target")
    return model, known


def _made_for(target: LoadedModel, folder: Path, settings: ModelSettings, reporter: Reporter) -> str:
    origin = read_origin(folder)
    if origin is None:
        reporter.say(
            f"{folder}: does not say which model it was made for (no unlora.json, as ours have); whether it is "
            f"{settings.name} cannot be checked, its numbers are right only if it is"
        )
        return UNKNOWN
    if origin.fingerprint == target.fingerprint:
        return SAME
    if origin.quantisation != target.source.quantisation:
        return _other_rounding(origin, target, folder, reporter)
    if origin.dtype != target.source.dtype and _is_in(origin, settings):
        reporter.say(f"{folder}: was made for these weights in {origin.dtype}; here they are {target.source.dtype}")
        return f"the same weights in {origin.dtype}"
    raise InputError(
        f"{folder}: was made for a model with weights {origin.fingerprint[:12]}, and {settings.name} has "
        f"{target.fingerprint[:12]}; give the model it was made for" + _hint(origin) + "."
    )


def _is_in(origin: Origin, settings: ModelSettings) -> bool:
    """Whether a model, loaded in the number format that an adapter was made for, is the one it was made for."""
    if not hasattr(torch, origin.dtype):
        return False
    again = load(settings.model_copy(update={"dtype": origin.dtype, "device": "cpu"}))
    return again.fingerprint == origin.fingerprint


def _other_rounding(origin: Origin, target: LoadedModel, folder: Path, reporter: Reporter) -> str:
    made, here = (bits or "full precision" for bits in (origin.quantisation, target.source.quantisation))
    reporter.say(
        f"{folder}: was made for a model in {made}, and this one is in {here}; whether it is the same model cannot be "
        "checked, its numbers are right only if it is"
    )
    return f"{UNKNOWN}: made in {made}, used in {here}"


def _hint(origin: Origin) -> str:
    return f" (from its folder: {origin.base})" if origin.base is not None else ""
