"""Rows of the weights of all linear layers: their change, the highest of them, and putting them back."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from unlora.models.target_modules import find_target_modules


def linear_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """A copy of every linear layer's weight, (d_out, d_in)."""
    return {name: target.weight().clone() for name, target in find_target_modules(model).items()}


def row_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Norm of the change of every row: module name -> (d_out,)."""
    return {name: (one - before[name]).norm(dim=1) for name, one in after.items()}


def highest_rows(rows: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Mask of the highest `share` of all rows of all modules, exactly so many."""
    joined = torch.cat(list(rows.values()))
    chosen = torch.zeros(len(joined), dtype=torch.bool)
    chosen[joined.argsort(descending=True, stable=True)[: round(share * len(joined))]] = True
    parts = chosen.split([len(one) for one in rows.values()])
    return dict(zip(rows, parts, strict=True))


@torch.no_grad()
def put_back(model: PreTrainedModel, weights: Mapping[str, Tensor], chosen: Mapping[str, Tensor] | None = None) -> None:
    """Give the chosen rows of every linear layer, by default all, their values in `weights`."""
    for name, target in find_target_modules(model).items():
        rows = slice(None) if chosen is None else chosen[name]
        target.weight()[rows] = weights[name][rows]
