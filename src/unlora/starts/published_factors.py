"""Starting factors with the arithmetic of the released VILA and FILA code: for comparison, never the default.

With I = V_B V_A (VILA) or I = S2 (FILA) of either set, and N its number of labels,

    M = (I_forget / N_forget) / (1e-5 + I_retain / N_retain),    d_i = sqrt(sum_j M_ij),
    D W ~ U S Q^T (randomised),    A = (S / s)^1/2 Q^T,    B = diag(1 / (d_i + 1e-5)) U (S / s)^1/2.

VILA's V is divided by N a second time here, which makes it so small that 1e-5 rules the denominator, and often
d_i + 1e-5 too. Both constants are absolute, so the result depends on the scale of the gradients; and B and A differ in
size by about 1 / d. `unlora.starts.initialise` does none of this.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.adapters.initial import InitialFactors, refuse_rank
from unlora.errors import InputError
from unlora.importance.importance_map import FactoredImportance, FullImportance, ImportanceMap, SetImportance
from unlora.models.target_modules import TargetModule
from unlora.shapes import Weight

EPSILON = 1e-5
"""Added to the retain term of the ratio, and again to the row scales that are divided by."""


class PublishedRows(NamedTuple):
    """What rows are multiplied by before the decomposition."""

    scales: Float[Tensor, " d_out"]
    """d, the square root of the row weights, in the number format of the map's sums."""
    floored_fraction: float
    """Share of the ratio's denominators in which 1e-5 exceeds the retain term."""


def published_factors(
    targets: Mapping[str, TargetModule],
    importance: ImportanceMap,
    *,
    rank: int,
    scaling: float,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, InitialFactors]:
    """Factors of every target module; the arguments are those of `initial_factors`.

    The released code subtracts s B A from the base weights; here the factors start an anchored adapter.

    Raises:
        InputError: the map was not measured by the released procedure, holds numbers that are not finite, or the rank
            is larger than a layer.
    """
    factors: dict[str, InitialFactors] = {}
    for name, target in targets.items():
        refuse_rank(rank, target)
        rows = published_rows(importance, name)
        factors[name] = _factorise(target.weight().cpu(), rows, rank=rank, scaling=scaling, seed=seed)
        if progress is not None:
            progress(1)
    return factors


def published_rows(importance: ImportanceMap, name: str) -> PublishedRows:
    """Row scales of one module; the map M is formed for this module alone.

    Raises:
        InputError: the map was not measured by the released procedure, or holds numbers that are not finite.
    """
    metadata, record = importance.metadata, importance[name]
    if metadata.published is None or metadata.retain is None or record.retain is None:
        raise InputError(
            "importance: was not measured by the released procedure (start vila_published or fila_published)."
        )
    dtype = getattr(torch, metadata.published.accumulator_dtype)
    forget = _unnormalised(record.forget, dtype) / metadata.forget.token_count
    retain = _unnormalised(record.retain, dtype) / metadata.retain.token_count
    scales = (forget / (EPSILON + retain)).sum(dim=1).sqrt()
    if not scales.isfinite().all():
        raise InputError(
            f"importance: of target module '{name}' is not finite; the model with the probe in it overflowed: take a "
            "smaller start.probe_std, or model.dtype=float32."
        )
    return PublishedRows(scales, float((retain < EPSILON).double().mean()))


def _unnormalised(record: SetImportance, dtype: torch.dtype) -> Weight:
    """The released map of one set before it is divided by N; the file's float32 holds the sums' own format exactly."""
    if isinstance(record, FactoredImportance):
        return record.lora_b.to(dtype) @ record.lora_a.to(dtype)
    if isinstance(record, FullImportance):
        return record.values.to(dtype)
    raise InputError("importance: marginals are not a space of the released procedure.")


@torch.no_grad()
def _factorise(matrix: Weight, rows: PublishedRows, *, rank: int, scaling: float, seed: int) -> InitialFactors:
    weighted = rows.scales[:, None] * matrix
    with torch.random.fork_rng(devices=[]):  # svd_lowrank draws from the global state, which others rely on
        torch.default_generator.manual_seed(seed)
        left, values, right = torch.svd_lowrank(weighted, q=rank)
    roots = (values / scaling).sqrt()
    lora_a = roots[:, None] * right.T
    lora_b = (1 / (rows.scales + EPSILON))[:, None] * left * roots
    lost = torch.linalg.vector_norm(weighted - rows.scales[:, None] * (scaling * lora_b @ lora_a))
    whole = torch.linalg.vector_norm(weighted)
    return InitialFactors(
        lora_b=lora_b.float(),
        lora_a=lora_a.float(),
        relative_residual=float(lost / whole) if whole else 0.0,
        status="published",
        floored_fraction=rows.floored_fraction,
    )
