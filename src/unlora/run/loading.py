"""What every recipe does first: load the model its settings name, and refuse a folder in use."""

import re
from pathlib import Path

from unlora import processes
from unlora.artifacts import refuse_unwritable
from unlora.errors import InputError
from unlora.locks import entries
from unlora.models.embedded import cache_folder, embedded_model_folder
from unlora.models.load import LoadedModel, load_model
from unlora.run.number_format import number_format
from unlora.run.reporter import Reporter
from unlora.run.settings import ModelSettings
from unlora.runtime import keep_freed_memory, resolve_device


def join_processes(settings: ModelSettings) -> None:
    """Meet the other processes of the run, if there are any, on the device that the settings say.

    Raises:
        InputError: no such device, or one that several processes would have to share.
    """
    processes.join(resolve_device(settings.device))


def load(settings: ModelSettings) -> LoadedModel:
    """Load a model as its settings say; of several processes each loads all of it."""
    device = resolve_device(settings.device)
    keep_freed_memory()
    cache_folder()  # One that cannot be named is refused now, not when the first scores are to be kept.
    if settings.name == "embedded":
        processes.on_main(embedded_model_folder)  # converted once, into a cache that they share
    return load_model(
        settings.name,
        base=settings.base,
        dtype=number_format(settings, device),
        device=device,
        trust_remote_code=settings.trust_remote_code,
        quantisation=settings.quantisation,
    )


def load_target(settings: ModelSettings, reporter: Reporter) -> LoadedModel:
    """Load the model that is to forget, and say what is to be known about it."""
    reporter.say(f"Loading the target model {settings.name}")
    target = load(settings)
    for note in target.notes:
        reporter.say(note)
    if settings.dtype == "auto" and target.model.device.type == "cpu" and target.source.dtype == "bfloat16":
        reporter.say("Number format: bfloat16, which this processor multiplies fast; --dtype float32 for the other")
    return target


def refuse_strangers(output: Path, own: re.Pattern[str], *, kind: str) -> None:
    """Refuse an output folder that is a file, or holds something else than a `kind` of unlora does.

    Args:
        output: may not exist yet.
        own: matches the whole name of what may lie there.
        kind: "sweep" and the like, for the message.

    Raises:
        InputError: naming what lies there.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; --output names a folder.")
    for path in entries(output) if output.is_dir() else ():
        if not own.fullmatch(path.name):
            raise InputError(f"{output}: not empty and not a {kind} of unlora ({path.name}); choose another --output.")


def refuse_used_folder(output: Path) -> None:
    """Refuse an output folder that holds something or cannot be written, before any work.

    Raises:
        InputError: naming it.
    """
    if output.is_file() or (output.is_dir() and entries(output)):
        raise InputError(f"{output}: already exists and is not empty; choose another --output.")
    refuse_unwritable(output)
