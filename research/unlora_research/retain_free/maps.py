"""Maps whose two sets may be of two models, and how far they agree with the map that the retain set gives."""

from statistics import median

from unlora.importance import ContrastMap, ImportanceMap, estimate_contrast, estimate_importance, module_ratio
from unlora.importance.diagnostics import rank_correlation
from unlora_research.retain_free.sources import GradientSet, GradientSets

RANK = 8


def measure_map(start: str, sets: GradientSets, seed: int) -> tuple[ImportanceMap | ContrastMap, float]:
    """The map that a start begins from, and its agreement with the retain set's."""
    if start in ("contrast", "contrast_inputs"):
        directions, reference = (contrast_map(start, sets.forget, one, seed) for one in (sets.divisor, sets.retain))
        return directions, overlap(directions, reference)
    found, reference = (importance_map(start, sets.forget, one, seed) for one in (sets.divisor, sets.retain))
    return found, agreement(found, reference)


def importance_map(preset: str, forget: GradientSet, divisor: GradientSet | None, seed: int) -> ImportanceMap:
    """Importance for the model of the forget set."""
    return estimate_importance(
        forget.model,
        forget.batches,
        divisor.batches if divisor is not None else None,
        retain_model=divisor.model if divisor is not None else None,
        preset=preset,
        rank=RANK,
        seed=seed,
    )


def contrast_map(preset: str, forget: GradientSet, divisor: GradientSet | None, seed: int) -> ContrastMap:
    """Directions for the model of the forget set."""
    return estimate_contrast(
        forget.model,
        forget.batches,
        divisor.batches if divisor is not None else None,
        retain_model=divisor.model if divisor is not None else None,
        rank=RANK,
        seed=seed,
        inputs_only=preset == "contrast_inputs",
    )


def agreement(found: ImportanceMap, reference: ImportanceMap) -> float:
    """Spearman of the row weights of two maps, in the median module."""
    return median(
        rank_correlation(module_ratio(found[name]).row_weights, module_ratio(reference[name]).row_weights)
        for name in found
    )


def overlap(found: ContrastMap, reference: ContrastMap) -> float:
    """Share of the reference's input directions that lies in the span of the other's, in the median module."""
    return median(float((one.inputs.T @ reference[name].inputs).square().sum() / RANK) for name, one in found.items())
