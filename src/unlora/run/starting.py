"""The start of a run: chosen, given what it may read, measured once, and turned into an adapter."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel

from unlora import processes
from unlora.adapters import attach_factors, attach_plain_adapter
from unlora.adapters.anchored import factor_parameters, lora_layers, needs_anchor
from unlora.artifacts import START_AGAIN, advised
from unlora.models.load import LoadedModel
from unlora.models.target_modules import TargetModule
from unlora.run.folder import RunFolder
from unlora.run.reporter import Reporter
from unlora.run.sets import Sets, content_hashes
from unlora.run.settings import UnlearnSettings
from unlora.starts.start import Progress, Start, StartData, Started, StartInputs
from unlora.starts.table import make_start


def chosen_start(settings: UnlearnSettings) -> Start:
    """Make the start that the settings choose.

    Raises:
        InputError: no such start, a setting that it does not have, or something else that it cannot do here.
    """
    start = make_start(settings.start.kind, settings.start.fields)
    start.refuse(
        retain=settings.data.retain is not None, coverage=settings.adapter.coverage, engine=processes.sharding()
    )
    return start


def freezes_a(settings: UnlearnSettings, start: Start) -> bool:
    """Whether A stays as it starts."""
    return start.freezes_a if settings.adapter.freeze_a is None else settings.adapter.freeze_a


def start_data(settings: UnlearnSettings, sets: Sets) -> StartData:
    """The sets of a run, for its start."""
    return StartData(
        sets.forget_tokens,
        sets.retain_tokens,
        sets.tokeniser.pad_token_id,
        seed=settings.seed,
        sha256=content_hashes(sets),
    )


def start_inputs(
    settings: UnlearnSettings,
    target: LoadedModel,
    targets: dict[str, TargetModule],
    sets: Sets,
    reporter: Reporter,
    scratch: Path,
) -> StartInputs:
    """All that a start may use; what does not fit into memory goes to the folder `scratch`."""

    @contextmanager
    def task(title: str, total: int) -> Iterator[Progress]:
        with reporter.task(title, total) as shown:
            yield shown.advance

    return StartInputs(
        target.model,
        targets,
        start_data(settings, sets),
        rank=settings.adapter.rank,
        alpha=settings.adapter.alpha,
        fingerprint=target.fingerprint,
        scratch=scratch,
        task=task,
    )


def measured_elsewhere(start: Start) -> Any:
    """Read the measurement that the settings name; None where they name none.

    Raises:
        InputError: not such a file.
    """
    named: str | None = getattr(start, "file", None)
    return start.load(Path(named)) if named is not None else None


def measured_before(start: Start, run: RunFolder, inputs: StartInputs, measured: Any) -> Any:
    """A measurement that fits: the one that was read, or what lies in the run folder; None without either.

    Raises:
        InputError: not such a file, or one of another model, of other layers or for another adapter.
    """
    if measured is None:
        if not start.measures or not run.importance.is_file():
            return None
        with advised(START_AGAIN):
            measured = start.load(run.importance)
    shapes = {name: (target.d_out, target.d_in) for name, target in inputs.targets.items()}
    where = str(getattr(start, "file", None) or run.importance)
    start.refuse_unless_fits(measured, shapes, rank=inputs.rank, fingerprint=inputs.fingerprint, where=where)
    return measured


def measure_start(start: Start, run: RunFolder, inputs: StartInputs, measured: Any, reporter: Reporter) -> Any:
    """Measure what the start is decided by, unless it is there, and keep it in the run folder; None if nothing is."""
    if not start.measures:
        return None
    if measured is None:
        with run.stage("importance"):
            measured = start.measure(inputs)
    if not processes.from_main(run.importance.is_file):
        processes.on_main(partial(measured.save, run.importance))
        measured = start.load(run.importance)  # Full weights stay in the file until they are touched.
    found = start.findings(measured)
    for line in found.lines:
        reporter.say(f"{start.title}: {line}")
    run.record["importance"] = found.record
    return measured


def attach_adapter(
    start: Start, inputs: StartInputs, measured: Any, *, freeze_a: bool
) -> tuple[PeftModel, dict[str, Any], Started]:
    """Find the start of every target module and attach the adapter.

    Returns:
        The model, how well the start fits, and the start itself, whose penalty training adds to the objective.
    """
    started = start.begin(inputs, measured)
    rank, alpha, targets, factors = inputs.rank, inputs.alpha, inputs.targets, started.factors
    if factors is None:
        model = attach_plain_adapter(inputs.model, targets, rank=rank, alpha=alpha, freeze_a=freeze_a)
        return model, {"kind": start.kind, "anchored": False, "module_count": len(targets)}, started
    floored = [one.floored_fraction for one in factors.values() if one.floored_fraction is not None]
    residuals = [one.relative_residual for one in factors.values() if one.relative_residual is not None]
    summary = {
        "kind": start.kind,
        "anchored": needs_anchor(factors),
        "module_count": len(factors),
        "mean_relative_residual": sum(residuals) / len(residuals) if residuals else None,
        "mean_floored_fraction": sum(floored) / len(floored) if floored else None,
    }
    model = attach_factors(inputs.model, factors, rank=rank, alpha=alpha, freeze_a=freeze_a)
    for _, layer in lora_layers(model):
        for parameter in factor_parameters(layer):
            processes.copy_main(parameter.data)  # Were an eigenvector turned round elsewhere, the pieces would not fit.
    return model, summary, started
