"""The start of a run: chosen, given what it may read, measured once, and turned into an adapter."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftModel

from unlora import processes
from unlora.adapters import attach_factors, attach_plain_adapter
from unlora.adapters.anchored import factor_parameters, lora_layers, needs_anchor
from unlora.adapters.expert_factors import expert_layers
from unlora.adapters.initial import NOT_REACHED, InitialFactors
from unlora.artifacts import START_AGAIN, advised
from unlora.models.choose import BELOW_COVERAGE, Choice, narrowed
from unlora.models.load import LoadedModel
from unlora.models.target_modules import TargetModule
from unlora.run.job import Run
from unlora.run.reporter import Reporter
from unlora.run.sets import Sets, content_hashes
from unlora.run.settings import AdapterSettings, UnlearnSettings
from unlora.starts.start import Advance, Start, StartData, StartInputs
from unlora.starts.table import make_start
from unlora.training.trainer import Penalty


class Attached(NamedTuple):
    """The model that training starts from."""

    model: PeftModel
    summary: dict[str, Any]
    """How well the start fits, for the record."""
    penalty: Penalty | None
    """What the start adds to the objective."""


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


def freezes_a(adapter: AdapterSettings, start: Start) -> bool:
    """Whether A stays as it starts."""
    return start.freezes_a if adapter.freeze_a is None else adapter.freeze_a


def start_data(sets: Sets, seed: int) -> StartData:
    """The sets of a run, for its start."""
    return StartData(
        sets.forget_tokens,
        sets.retain_tokens,
        sets.tokeniser.pad_token_id,
        seed=seed,
        sha256=content_hashes(sets),
    )


def start_inputs(
    adapter: AdapterSettings,
    target: LoadedModel,
    targets: dict[str, TargetModule],
    data: StartData,
    reporter: Reporter,
    scratch: Path,
) -> StartInputs:
    """All that a start may use; what does not fit into memory goes to the folder `scratch`."""

    @contextmanager
    def task(title: str, total: int) -> Iterator[Advance]:
        with reporter.task(title, total) as shown:
            yield shown.advance

    return StartInputs(
        target.model,
        targets,
        data,
        rank=adapter.rank,
        alpha=adapter.alpha,
        fingerprint=target.fingerprint,
        scratch=scratch,
        task=task,
    )


class StartRun:
    """One start in one run: refused early, measured on the intact model, turned into an adapter."""

    def __init__(self, start: Start, adapter: AdapterSettings) -> None:
        """Load nothing yet.

        Args:
            start: with its settings.
            adapter: section of the run's settings.
        """
        self.start, self._adapter = start, adapter
        self._measured: Any = None
        self._inputs: StartInputs | None = None

    def load(self) -> None:
        """Read the measurement that the settings name, where they name one.

        Raises:
            InputError: not such a file.
        """
        named: str | None = getattr(self.start, "file", None)
        self._measured = self.start.load(Path(named)) if named is not None else None

    def prepare(self, run: Run, target: LoadedModel, choice: Choice, sets: Sets) -> None:
        """Gather what the start may use, and take up what an earlier call has measured.

        Raises:
            InputError: a damaged measurement, or one of another model, of other layers or for another adapter.
        """
        data = start_data(sets, run.seed)
        inputs = start_inputs(self._adapter, target, choice.targets, data, run.reporter, run.path)
        self._inputs = inputs
        if self._measured is None and self.start.measures and run.importance.is_file():
            with advised(START_AGAIN):
                self._measured = self.start.load(run.importance)
        if self._measured is None:
            return
        shapes = {name: (layer.d_out, layer.d_in) for name, layer in inputs.targets.items()}
        where = str(getattr(self.start, "file", None) or run.importance)
        self.start.refuse_unless_fits(
            self._measured, shapes, rank=inputs.rank, fingerprint=inputs.fingerprint, where=where
        )

    @property
    def inputs(self) -> StartInputs:
        """What the start may use."""
        if self._inputs is None:
            raise RuntimeError("the start was not prepared")
        return self._inputs

    def measure(self, run: Run) -> None:
        """Measure what the start is decided by, unless it is there, and keep it in the run folder."""
        start = self.start
        if not start.measures:
            return
        if self._measured is None:
            with run.stage("importance"):
                self._measured = start.measure(self.inputs)
        if not processes.from_main(run.importance.is_file):
            processes.on_main(partial(self._measured.save, run.importance))
            self._measured = start.load(run.importance)  # Full weights stay in the file until they are touched.
        found = start.findings(self._measured)
        for line in found.lines:
            run.say(f"{start.title}: {line}")
        run.record["importance"] = found.record

    def narrow(self, choice: Choice) -> Choice:
        """Leave out the layers that matter least, as `adapter.coverage` says."""
        kept = self.start.kept_modules(self._measured, list(choice.targets), self._adapter.coverage)
        chosen = narrowed(self.inputs.model, choice, {name: choice.targets[name] for name in kept}, BELOW_COVERAGE)
        self._inputs = replace(self.inputs, targets=chosen.targets)
        return chosen

    def attach(self) -> Attached:
        """Find where every target module starts and attach the adapter."""
        start, inputs = self.start, self.inputs
        freeze_a = freezes_a(self._adapter, start)
        factors, penalty = start.begin(inputs, self._measured)
        rank, alpha = inputs.rank, inputs.alpha
        if factors is None:
            model = attach_plain_adapter(inputs.model, inputs.targets, rank=rank, alpha=alpha, freeze_a=freeze_a)
            summary = {"kind": start.kind, "anchored": False, "module_count": len(inputs.targets)}
            return Attached(model, summary, penalty)
        model = attach_factors(inputs.model, factors, rank=rank, alpha=alpha, freeze_a=freeze_a)
        for _, layer in (*lora_layers(model), *expert_layers(model)):
            for parameter in factor_parameters(layer):
                # Were an eigenvector turned round elsewhere, the pieces would not fit.
                processes.copy_main(parameter.data)
        return Attached(model, {"kind": start.kind, **fit_of(factors)}, penalty)


def fit_of(factors: Mapping[str, InitialFactors]) -> dict[str, Any]:
    """How well the starting factors fit, for the record."""
    floored = [one.floored_fraction for one in factors.values() if one.floored_fraction is not None]
    residuals = [one.relative_residual for one in factors.values() if one.relative_residual is not None]
    return {
        "anchored": needs_anchor(factors),
        "module_count": len(factors),
        "experts_not_reached": sum(one.status == NOT_REACHED for one in factors.values()),
        "mean_relative_residual": sum(residuals) / len(residuals) if residuals else None,
        "mean_floored_fraction": sum(floored) / len(floored) if floored else None,
    }
