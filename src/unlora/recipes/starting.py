"""Where unlearning starts: what is measured on the intact model, and the adapter that it decides."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel

from unlora import processes
from unlora.adapters import attach_anchored_adapter, attach_plain_adapter, factors_as_measured
from unlora.adapters.anchored import factor_parameters, lora_layers, needs_anchor
from unlora.adapters.contrast import contrast_factors
from unlora.adapters.initialise import InitialFactors
from unlora.adapters.representation import OrthogonalityPenalty, representation_start
from unlora.adapters.starts import STARTS, starting_factors
from unlora.data.collate import batches_by_length, collate
from unlora.data.tokenise import TokenisedExample
from unlora.importance import ImportanceMap, estimate_importance, most_important_modules
from unlora.importance.accumulate import Batch
from unlora.importance.contrast_map import ContrastMap, estimate_contrast
from unlora.models.load import LoadedModel
from unlora.models.target_modules import TargetModule
from unlora.recipes.diagnostics import report_contrast, report_map
from unlora.recipes.published import measure_published_importance
from unlora.recipes.reporter import Reporter
from unlora.recipes.run_folder import RunFolder
from unlora.recipes.sets import Sets, content_hashes
from unlora.recipes.settings import CONTRAST, WEIGHTED, UnlearnSettings
from unlora.training.trainer import Penalty

Measured = ImportanceMap | ContrastMap


def load_measured(path: Path, settings: UnlearnSettings) -> Measured:
    """Read what an earlier measurement wrote, of the kind that the settings start from.

    Raises:
        InputError: not such a file.
    """
    return ContrastMap.load(path) if settings.importance.initialisation in CONTRAST else ImportanceMap.load(path)


def refuse_unless_fits(
    measured: Measured, settings: UnlearnSettings, targets: Mapping[str, TargetModule], fingerprint: str, where: str
) -> None:
    """Refuse a measurement of another model, of other modules, or made for another adapter.

    Raises:
        InputError: naming the first difference.
    """
    shapes = {name: (module.d_out, module.d_in) for name, module in targets.items()}
    rank = settings.adapter.rank
    if isinstance(measured, ContrastMap):
        only = settings.importance.inputs_only
        measured.refuse_unless_fits(shapes, fingerprint=fingerprint, rank=rank, where=where, inputs_only=only)
    else:
        arithmetic = settings.importance.arithmetic
        measured.refuse_unless_fits(shapes, fingerprint=fingerprint, rank=rank, arithmetic=arithmetic, where=where)


def measure(
    settings: UnlearnSettings,
    run: RunFolder,
    target: LoadedModel,
    sets: Sets,
    targets: dict[str, TargetModule],
    measured: Measured | None,
    reporter: Reporter,
) -> tuple[Measured | None, dict[str, TargetModule]]:
    """Measure what the start is decided by, unless it is there, and keep it in the run folder.

    Returns:
        The measurement, None where the start needs none, and the modules that get an adapter.
    """
    kind = settings.importance.initialisation
    if kind not in WEIGHTED + CONTRAST:
        return None, targets
    if measured is None:
        with run.stage("importance"):
            if kind in CONTRAST:
                measured = measure_contrast(settings, target, sets, list(targets), reporter)
            else:
                measured = measure_importance(settings, target, sets, list(targets), reporter, scratch=run.path)
    if not processes.from_main(run.importance.is_file):
        processes.on_main(partial(measured.save, run.importance))
        measured = load_measured(run.importance, settings)  # Full weights stay in the file until they are touched.
    if isinstance(measured, ContrastMap):
        run.record["importance"] = report_contrast(measured, reporter)
        return measured, targets
    run.record["importance"] = report_map(measured, reporter)
    chosen = set(most_important_modules(measured, settings.adapter.coverage))
    return measured, {name: module for name, module in targets.items() if name in chosen}


def measure_importance(
    settings: UnlearnSettings,
    target: LoadedModel,
    sets: Sets,
    target_names: list[str],
    reporter: Reporter,
    *,
    scratch: Path,
) -> ImportanceMap:
    """Estimate importance on the whole forget set and a seeded sample of the retain set; offload to `scratch`."""
    if settings.importance.arithmetic == "published":
        return measure_published_importance(settings, target, sets, target_names, reporter)
    forget, retain, total = measured_batches(settings, sets)
    with reporter.task("Importance", total) as task:
        return estimate_importance(
            target.model,
            forget,
            retain,
            statistic=settings.importance.statistic,
            space=settings.importance.space,
            gradient_unit=settings.importance.gradient_unit,
            reduction=settings.importance.reduction,
            offload=settings.importance.offload,
            scratch=scratch,
            target_modules=target_names,
            rank=settings.adapter.rank,
            probe_std=settings.importance.probe_std,
            seed=settings.seed,
            data_sha256=content_hashes(sets),
            model_fingerprint=target.fingerprint,
            progress=task.advance,
        )


def measure_contrast(
    settings: UnlearnSettings, target: LoadedModel, sets: Sets, target_names: list[str], reporter: Reporter
) -> ContrastMap:
    """Find the contrast directions on the whole forget set and a seeded sample of the retain set."""
    forget, retain, total = measured_batches(settings, sets)
    with reporter.task("Contrast", total) as task:
        return estimate_contrast(
            target.model,
            forget,
            retain,
            target_modules=target_names,
            rank=settings.adapter.rank,
            damping=settings.importance.damping,
            inputs_only=settings.importance.inputs_only,
            seed=settings.seed,
            data_sha256=content_hashes(sets),
            model_fingerprint=target.fingerprint,
            progress=task.advance,
        )


def measured_batches(settings: UnlearnSettings, sets: Sets) -> tuple[Iterator[Batch], Iterator[Batch] | None, int]:
    """Batches of the whole forget set and of a seeded sample of the retain set, and how many examples they hold."""
    retain_tokens = sets.retain_tokens
    if retain_tokens is not None and len(retain_tokens) > settings.importance.max_retain_examples:
        retain_tokens = random.Random(settings.seed).sample(retain_tokens, settings.importance.max_retain_examples)

    def batches(tokens: Sequence[TokenisedExample]) -> Iterator[Batch]:
        rows_of_batches = batches_by_length(tokens, settings.importance.batch_size)
        return (collate([tokens[row] for row in rows], sets.tokeniser.pad_token_id) for rows in rows_of_batches)

    retain = batches(retain_tokens) if retain_tokens is not None else None
    return batches(sets.forget_tokens), retain, len(sets.forget_tokens) + len(retain_tokens or [])


def attach_adapter(
    settings: UnlearnSettings,
    target: LoadedModel,
    targets: Mapping[str, TargetModule],
    measured: Measured | None,
    sets: Sets,
    reporter: Reporter,
) -> tuple[PeftModel, dict[str, Any], Penalty | None]:
    """Find the start of every target module and attach the adapter.

    Returns:
        The model, how well the start fits, and what training is to add to the objective (ReGLU's penalty).
    """
    rank, alpha, kind = settings.adapter.rank, settings.adapter.alpha, settings.importance.initialisation
    if kind == "plain":
        model = attach_plain_adapter(target.model, targets, rank=rank, alpha=alpha, freeze_a=settings.adapter.freeze_a)
        return model, {"kind": kind, "anchored": False, "module_count": len(targets)}, None
    with reporter.task("Starting factors", len(targets)) as task:
        factors, penalty = _start(settings, target, targets, measured, sets, task.advance)
    floored = [start.floored_fraction for start in factors.values() if start.floored_fraction is not None]
    residuals = [start.relative_residual for start in factors.values() if start.relative_residual is not None]
    summary = {
        "kind": kind,
        "anchored": needs_anchor(factors),
        "module_count": len(factors),
        "mean_relative_residual": sum(residuals) / len(residuals) if residuals else None,
        "mean_floored_fraction": sum(floored) / len(floored) if floored else None,
    }
    model = attach_anchored_adapter(
        target.model, rank=rank, alpha=alpha, factors=factors, freeze_a=settings.adapter.freeze_a
    )
    for _, layer in lora_layers(model):
        for parameter in factor_parameters(layer):
            processes.copy_main(parameter.data)  # Were an eigenvector turned round elsewhere, the pieces would not fit.
    return model, summary, penalty


def _start(
    settings: UnlearnSettings,
    target: LoadedModel,
    targets: Mapping[str, TargetModule],
    measured: Measured | None,
    sets: Sets,
    progress: Callable[[int], None],
) -> tuple[dict[str, InitialFactors], Penalty | None]:
    kind, rank, seed = settings.importance.initialisation, settings.adapter.rank, settings.seed
    scaling = settings.adapter.alpha / rank
    if isinstance(measured, ContrastMap):
        only = settings.importance.inputs_only
        return contrast_factors(
            targets, measured, rank=rank, scaling=scaling, inputs_only=only, seed=seed, progress=progress
        ), None
    if kind == "reglu":
        forget, retain, _ = measured_batches(settings, sets)
        start = representation_start(
            target.model, targets, forget, retain or (), rank=rank, scaling=scaling, progress=progress
        )
        penalty = OrthogonalityPenalty(start.retain_subspaces, settings.importance.orthogonality)
        return start.factors, penalty.to(target.model.device)
    if kind in STARTS:
        forget, retain, _ = measured_batches(settings, sets)
        return starting_factors(
            kind, target.model, targets, forget, retain, rank=rank, scaling=scaling, seed=seed, progress=progress
        ), None
    return factors_as_measured(
        targets,
        measured,
        rank=rank,
        scaling=scaling,
        solver=settings.importance.solver if measured is not None else "row",
        shuffle_rows=kind == "shuffled",
        seed=seed,
        progress=progress,
    ), None
