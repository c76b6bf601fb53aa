"""Where unlearning starts: importance on the intact model, and the adapter that it decides."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel

from unlora.adapters import attach_anchored_adapter, attach_plain_adapter, factors_as_measured
from unlora.data.collate import batches_by_length, collate
from unlora.data.tokenise import TokenisedExample
from unlora.importance import ImportanceMap, estimate_importance
from unlora.models.load import LoadedModel
from unlora.models.target_modules import TargetModule
from unlora.recipes.published import measure_published_importance
from unlora.recipes.reporter import Reporter
from unlora.recipes.sets import Sets
from unlora.recipes.settings import UnlearnSettings


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
    pad, size = sets.tokeniser.pad_token_id, settings.importance.batch_size
    retain_tokens = sets.retain_tokens
    if retain_tokens is not None and len(retain_tokens) > settings.importance.max_retain_examples:
        retain_tokens = random.Random(settings.seed).sample(retain_tokens, settings.importance.max_retain_examples)

    def batches(tokens: list[TokenisedExample]):
        return (collate([tokens[row] for row in rows], pad) for rows in batches_by_length(tokens, size))

    total = len(sets.forget_tokens) + len(retain_tokens or [])
    with reporter.task("Importance", total) as task:
        return estimate_importance(
            target.model,
            batches(sets.forget_tokens),
            batches(retain_tokens) if retain_tokens is not None else None,
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
            data_sha256=(sets.forget.sha256(), sets.retain.sha256() if sets.retain is not None else None),
            progress=task.advance,
        )


def attach_adapter(
    settings: UnlearnSettings,
    target: LoadedModel,
    targets: Mapping[str, TargetModule],
    importance: ImportanceMap | None,
    reporter: Reporter,
) -> tuple[PeftModel, dict[str, Any]]:
    """Solve for the start of every target module and attach the adapter; say how well the start fits."""
    rank, alpha = settings.adapter.rank, settings.adapter.alpha
    if settings.importance.initialisation == "plain":
        model = attach_plain_adapter(target.model, targets, rank=rank, alpha=alpha)
        return model, {"kind": "plain", "module_count": len(targets)}
    with reporter.task("Low-rank solutions", len(targets)) as task:
        factors = factors_as_measured(
            targets, importance, rank=rank, scaling=alpha / rank, seed=settings.seed, progress=task.advance
        )
    floored = [start.floored_fraction for start in factors.values() if start.floored_fraction is not None]
    summary = {
        "kind": settings.importance.initialisation,
        "module_count": len(factors),
        "mean_relative_residual": sum(start.relative_residual for start in factors.values()) / len(factors),
        "mean_floored_fraction": sum(floored) / len(floored) if floored else None,
    }
    return attach_anchored_adapter(target.model, rank=rank, alpha=alpha, factors=factors), summary
