"""Starts from the literature to compare with, all through the same anchored adapter."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple, get_args

from transformers import PreTrainedModel

from unlora.adapters.initialise import InitialFactors
from unlora.adapters.peft_starts import corda_factors, data_free_factors, eva_factors, lora_ga_factors
from unlora.adapters.representation import representation_start
from unlora.errors import InputError, nearest
from unlora.importance.accumulate import Batch
from unlora.models.target_modules import TargetModule

StartName = Literal["olora", "corda", "eva", "lora_ga", "reglu"]


class Start(NamedTuple):
    """One way to start, in a line."""

    summary: str
    source: str
    forget: bool
    """Reads the forget set."""
    retain: bool
    """Reads the retain set."""


STARTS: dict[StartName, Start] = {
    "olora": Start("leading columns and rows of W = Q R", "OLoRA, arXiv 2406.01775", False, False),
    "corda": Start("what the retain set's inputs use least of W", "CorDA, arXiv 2406.05223", False, True),
    "eva": Start("A spans the forget set's inputs, B = 0", "EVA, arXiv 2410.07170", True, False),
    "lora_ga": Start("singular vectors of the forget set's mean gradient", "LoRA-GA, arXiv 2407.05000", True, False),
    "reglu": Start("outputs that set forget apart from retain examples", "ReGLU, arXiv 2604.17396", True, True),
}


def starting_factors(
    kind: StartName,
    model: PreTrainedModel,
    targets: Mapping[str, TargetModule],
    forget_batches: Iterable[Batch] | None,
    retain_batches: Iterable[Batch] | None,
    *,
    rank: int,
    scaling: float,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, InitialFactors]:
    """Compute one of `STARTS` for `attach_anchored_adapter(factors=...)`; the model is left as it was found.

    Args:
        kind: one of `STARTS`.
        model: the target model, without an adapter.
        targets: canonical name -> linear layer.
        forget_batches: dict batches of input_ids, attention_mask, labels (batch, token); read where the kind says so.
        retain_batches: likewise.
        rank: r.
        scaling: s, the adapter's alpha / r.
        seed: of LoRA-GA's decomposition; the others draw nothing, or from a fixed seed of PEFT's.
        progress: called with 1 after each module.

    Raises:
        InputError: no such kind, a set that it needs is missing, the rank does not fit a layer, or what the kind's own
            function refuses.
    """
    if kind not in STARTS:
        raise InputError(f"start '{kind}': is none of {', '.join(get_args(StartName))}.{nearest(kind, STARTS)}")
    forget, retain = forget_batches or (), retain_batches or ()
    for set_name, needed, batches in (
        ("forget", STARTS[kind].forget, forget_batches),
        ("retain", STARTS[kind].retain, retain_batches),
    ):
        if needed and batches is None:
            raise InputError(f"start '{kind}': needs a {set_name} set.")
    match kind:
        case "olora":
            return data_free_factors("olora", targets, rank=rank, scaling=scaling, progress=progress)
        case "corda":
            return corda_factors(model, targets, retain, rank=rank, scaling=scaling, progress=progress)
        case "eva":
            return eva_factors(model, targets, forget, rank=rank, progress=progress)
        case "lora_ga":
            return lora_ga_factors(model, targets, forget, rank=rank, scaling=scaling, seed=seed, progress=progress)
        case "reglu":
            start = representation_start(model, targets, forget, retain, rank=rank, scaling=scaling, progress=progress)
            return start.factors
