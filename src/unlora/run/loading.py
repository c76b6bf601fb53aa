"""What every recipe does first: load the model its settings name."""

from unlora import processes
from unlora.models.embedded import cache_folder, embedded_model_folder
from unlora.models.load import LoadedModel, load_model
from unlora.run.number_format import is_emulated, number_format
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
    dtype, on_cpu = target.source.dtype, target.model.device.type == "cpu"
    if settings.dtype == "auto" and on_cpu and dtype == "bfloat16":
        reporter.say("Number format: bfloat16, which this processor multiplies fast; --dtype float32 for the other")
    elif on_cpu and is_emulated(dtype):
        advice = "--dtype float32 may be many times as fast"
        reporter.say(f"Number format: {dtype}, for which this processor has no instructions; {advice}")
    return target
