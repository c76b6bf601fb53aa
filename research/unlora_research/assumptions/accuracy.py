"""How far an estimate of a layer's variances is from the truth, and where the weights of its rows end up."""

import math

import torch
from torch import Tensor

from unlora.importance import module_ratio
from unlora.importance.diagnostics import rank_correlation
from unlora.importance.importance_map import FullImportance, ModuleImportance
from unlora.shapes import Weight

MEASURES: dict[str, str] = {
    "frobenius": "relative error of the entries",
    "entries": "Spearman of entries",
    "rows": "Spearman of row sums",
    "ratio_rows": "Spearman of row weights (ratio)",
}
RANKED_ENTRIES = 8192


def errors(estimate: Weight, truth: Weight) -> dict[str, float]:
    """How far an estimate is from the truth, whatever its scale.

    Returns:
        frobenius: ||c E - T|| / ||T|| at the best c, which is the sine of the angle between both; entries, rows: rank
        correlation of (at most 8192) entries and of row sums.
    """
    flat, known = estimate.flatten().double(), truth.flatten().double()
    cosine = float(flat @ known / (flat.norm() * known.norm()))
    some = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:RANKED_ENTRIES]
    return {
        "frobenius": math.sqrt(max(1 - cosine**2, 0.0)),
        "entries": rank_correlation(flat[some], known[some]),
        "rows": rank_correlation(estimate.sum(dim=1), truth.sum(dim=1)),
    }


def row_weights(forget: Weight, retain: Weight) -> Tensor:
    """What the ratio of both sets would weight the layer's rows with, (d_out,)."""
    return module_ratio(ModuleImportance(FullImportance(forget), FullImportance(retain))).row_weights
