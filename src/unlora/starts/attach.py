"""The anchored adapter in one call: from a measurement to a model that can be trained."""

from collections.abc import Mapping

from peft import PeftModel

from unlora.adapters.anchored import attach_factors, refuse_adapter
from unlora.adapters.initial import InitialFactors
from unlora.importance.contrast_map import ContrastMap
from unlora.importance.importance_map import ImportanceMap
from unlora.models.choose import targets_of
from unlora.models.wrapping import CausalModel
from unlora.starts.contrast_factors import contrast_factors
from unlora.starts.initialise import initial_factors
from unlora.starts.published_factors import published_factors


def attach_anchored_adapter(
    model: CausalModel,
    importance: ImportanceMap | ContrastMap | None = None,
    *,
    rank: int = 8,
    alpha: int | float = 16,
    factors: Mapping[str, InitialFactors] | None = None,
    freeze_a: bool = False,
    seed: int = 0,
) -> PeftModel:
    """Wrap `model` in a LoRA adapter of rank 2r whose output is the target's at step 0.

    Where every B0 is zero there is nothing to anchor: the adapter is then an ordinary one of rank r.

    Args:
        model: the target model; its weights are not written.
        importance: decides the starting factors and which modules get an adapter; of a contrast map with input
            directions only, B0 is zero. None starts every layer that can have an adapter uniformly (PiSSA's way).
        rank: r, the trainable half.
        alpha: the scaling is alpha / rank; it doubles with the rank in the saved adapter.
        factors: starting factors computed before, instead of `importance`.
        freeze_a: train B alone, so that every change of W is felt by inputs in the span of A0 only.
        seed: of the randomised decomposition.

    Returns:
        A `PeftModel`; what it saves is an ordinary LoRA adapter.

    Raises:
        InputError: the model has an adapter already, the importance does not fit it, or the rank does not fit a layer.
    """
    refuse_adapter(model)
    if factors is None:
        factors = _factors_from(model, importance, rank=rank, scaling=alpha / rank, seed=seed)
    return attach_factors(model, factors, rank=rank, alpha=alpha, freeze_a=freeze_a)


def _factors_from(
    model: CausalModel, measured: ImportanceMap | ContrastMap | None, *, rank: int, scaling: float, seed: int
) -> dict[str, InitialFactors]:
    targets = targets_of(model, list(measured) if measured is not None else None, rank=rank)
    shapes = {name: (target.d_out, target.d_in) for name, target in targets.items()}
    if isinstance(measured, ContrastMap):
        only = measured.metadata.inputs_only
        measured.refuse_unless_fits(shapes, fingerprint=None, rank=rank, where="importance", inputs_only=only)
        return contrast_factors(targets, measured, rank=rank, scaling=scaling, inputs_only=only, seed=seed)
    if measured is not None:
        measured.refuse_unless_fits(shapes, fingerprint=None, where="importance")
        if measured.metadata.published is not None:
            return published_factors(targets, measured, rank=rank, scaling=scaling, seed=seed)
    return initial_factors(targets, measured, rank=rank, scaling=scaling, seed=seed)
