"""Everything that is timed at one point, as functions without arguments."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from peft import PeftModel

from unlora.adapters import attach_plain_adapter
from unlora.importance import ContrastMap, ImportanceMap, estimate_contrast, estimate_importance
from unlora.importance.accumulate import Batch
from unlora.importance.contrast_map import SKETCH_COLUMNS
from unlora.importance.published import estimate_published_importance
from unlora.models.quiet import quiet
from unlora.models.target_modules import find_target_modules
from unlora.starts.attach import attach_anchored_adapter
from unlora.starts.contrast_factors import contrast_factors
from unlora.starts.initialise import initial_factors
from unlora_research.scale.subjects import PAD, Subject

SCALING = 2.0


def extraction_works(one: Subject, rank: int, seed: int) -> dict[str, Callable[[], ImportanceMap | ContrastMap]]:
    """Every way to measure; of the released ones, one pass."""
    ours = partial(estimate_importance, one.model, *one.batches(), rank=rank, seed=seed)
    released = partial(
        estimate_published_importance,
        one.model,
        one.forget,
        one.retain,
        pad_token_id=PAD,
        rank=rank,
        passes=1,
        seed=seed,
    )
    columns = max(SKETCH_COLUMNS, rank)
    return {
        "marginal": partial(ours, preset="marginal"),
        "vila": partial(ours, preset="vila"),
        "contrast_inputs": partial(
            estimate_contrast,
            one.model,
            *one.batches(),
            rank=rank,
            inputs_only=True,
            sketch_columns=columns,
            seed=seed,
        ),
        "fila": partial(ours, preset="fila"),
        "vila_published": partial(released, space="lora_factors"),
        "fila_published": partial(released, space="full_weights"),
    }


def other_works(one: Subject, rank: int, measured: Mapping[str, Any]) -> dict[str, Callable[[], object]]:
    """Starting factors from what was measured, and a training pass over both sets with each kind of adapter."""
    targets = find_target_modules(one.model)
    batches = [batch for part in one.batches() for batch in part]
    alpha = SCALING * rank
    rows = partial(initial_factors, targets, rank=rank, scaling=SCALING)
    inputs = partial(
        contrast_factors, targets, measured["contrast_inputs"], rank=rank, scaling=SCALING, inputs_only=True
    )
    plain = partial(attach_plain_adapter, one.model, targets, rank=rank, alpha=alpha)
    anchored = partial(attach_anchored_adapter, one.model, rank=rank, alpha=alpha)
    return {
        "initialise vila": partial(rows, measured["vila"]),
        "initialise marginal": partial(rows, measured["marginal"]),
        "initialise contrast_inputs": inputs,
        "initialise fila": partial(rows, measured["fila"]),
        "pass plain": partial(training_pass, plain, batches),
        "pass anchored": partial(training_pass, partial(anchored, factors=rows(measured["marginal"])), batches),
        "pass frozen A": partial(training_pass, partial(anchored, factors=inputs(), freeze_a=True), batches),
    }


def training_pass(attach: Callable[[], PeftModel], batches: Sequence[Batch]) -> None:
    """Forward and backward once over every batch with an adapter, which is taken off again."""
    with quiet():
        model = attach()
    model.train()
    try:
        for batch in batches:
            model(**batch, use_cache=False).loss.backward()
    finally:
        model.unload().requires_grad_(False).eval()
