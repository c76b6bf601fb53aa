"""Rows and modules scored in every way: by their true change, by each map, and by controls."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from unlora.importance import ContrastMap, ImportanceMap, estimate_contrast, estimate_importance, module_ratio
from unlora.importance.accumulate import Batch
from unlora.importance.importance_map import MarginalImportance
from unlora.importance.ratio import module_score
from unlora_research.sanity.rows import linear_weights, row_changes


class Ranking(NamedTuple):
    """Scores, the higher the more important."""

    rows: dict[str, Tensor]
    """Module name -> (d_out,), comparable between modules."""
    modules: dict[str, float]


def rank_rows(
    model: PreTrainedModel, forget: Sequence[Batch], retain: Sequence[Batch], before: Mapping[str, Tensor], seed: int
) -> dict[str, Ranking]:
    """Score rows and modules in every way of `RANKINGS`.

    Args:
        model: what learnt the forget set.
        forget: batches of the forget set.
        retain: batches of what it knew before.
        before: its linear layers' weights before.
        seed: of maps and of the random order.
    """
    maps = {
        name: estimate_importance(model, forget, retain, preset=name, seed=seed)
        for name in ("marginal", "vila", "fila")
    }
    weights = linear_weights(model)
    generator = torch.Generator().manual_seed(seed)
    random = {name: torch.rand(len(one), generator=generator) for name, one in weights.items()}
    marginals = {name: one.forget for name, one in maps["marginal"].items()}
    return {
        "change": _by_rows(row_changes(before, weights)),
        **{name: ratio_ranking(one) for name, one in maps.items()},
        "contrast": contrast_ranking(estimate_contrast(model, forget, retain, seed=seed)),
        "forget_energy": _by_rows({n: one.rows for n, one in marginals.items() if isinstance(one, MarginalImportance)}),
        "weight_norm": _by_rows({name: one.norm(dim=1) for name, one in weights.items()}),
        "random": _by_rows(random),
    }


def ratio_ranking(importance: ImportanceMap) -> Ranking:
    """Rows by the ratio of forget over retain importance; a sum over d_in ratios becomes their mean, so that rows of
    different lengths compare.
    """
    rows = {}
    for name, one in importance.items():
        weights = module_ratio(one).row_weights
        separable = isinstance(one.forget, MarginalImportance)
        rows[name] = weights if separable else weights / importance.metadata.module_shapes[name][1]
    return Ranking(rows, {name: module_score(one) for name, one in importance.items()})


def contrast_ranking(contrast: ContrastMap) -> Ranking:
    """Rows by their energy in the output directions, each direction weighted with its eigenvalue."""
    rows, modules = {}, {}
    for name, one in contrast.items():
        if one.outputs is not None and one.output_eigenvalues is not None:
            rows[name] = one.outputs.square() @ one.output_eigenvalues
            modules[name] = float(one.output_eigenvalues[0])
    return Ranking(rows, modules)


def _by_rows(rows: dict[str, Tensor]) -> Ranking:
    """A module scores the mean of its rows."""
    return Ranking(rows, {name: float(one.mean()) for name, one in rows.items()})
