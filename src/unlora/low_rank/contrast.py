"""Directions in which one Gram matrix is large and another small: leading generalised eigenvectors."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.errors import InputError


@dataclass(frozen=True)
class ContrastDirections:
    """Orthonormal basis of the leading generalised eigenvectors."""

    basis: Float[Tensor, "d rank"]
    """The span of the eigenvectors, the largest eigenvalue first in the order of orthonormalisation."""
    eigenvalues: Float[Tensor, " rank"]
    """v^T L_f v / v^T (L_r + damping) v of each eigenvector, both matrices of trace one, d (L_r + damping) about one in
    a direction that is nothing special: 1 means as much of the forget as of the retain set's share."""


@torch.no_grad()
def contrast_directions(
    forget: Float[Tensor, "d forget_column"],
    retain: Float[Tensor, "d retain_column"] | None,
    *,
    rank: int,
    damping: float,
) -> ContrastDirections:
    """Leading generalised eigenvectors of (F F^T, R R^T + (damping / d) I), both Gram matrices scaled to trace one.

    Neither d x d matrix is formed. Every eigenvector lies in the span of (R R^T + delta I)^-1 F, so a symmetric problem
    as small as F's columns gives them exactly; the inverse is Woodbury's, as small as R's columns.

    Args:
        forget: F.
        retain: R; None or all zero leaves the damping alone, and the result is F's leading left singular vectors.
        rank: how many directions, at most d and F's columns.
        damping: how much of the identity, in units of the mean eigenvalue of R R^T; > 0. Directions in which the
            retain set has less than that share count as free.

    Raises:
        InputError: a damping that is not positive, too many directions, numbers not finite, or F all zero.
    """
    d, columns = forget.shape
    if damping <= 0:
        raise InputError(f"damping: must be positive, found {damping}.")
    if not 1 <= rank <= min(d, columns):
        raise InputError(f"rank: must lie between 1 and {min(d, columns)}, found {rank}.")
    f, r = _trace_one(forget), _trace_one(retain) if retain is not None else None
    if f is None:
        raise InputError("forget: all zero; there is no direction to find.")
    delta = damping / d
    solved = f / delta
    if r is not None:
        core = r.T @ r
        core.diagonal().add_(delta)
        solved = (f - r @ torch.cholesky_solve(r.T @ f, torch.linalg.cholesky(core))) / delta
    eigenvalues, eigenvectors = torch.linalg.eigh(f.T @ solved)
    leading = solved @ eigenvectors[:, -rank:].flip(1)
    basis = torch.linalg.qr(leading).Q
    return ContrastDirections(basis.to(forget.dtype), eigenvalues[-rank:].flip(0).to(forget.dtype))


def _trace_one(factor: Tensor) -> Tensor | None:
    """In float64, because the damping may be a thousandth of the largest eigenvalue; None where all is zero."""
    factor = factor.double()
    norm = torch.linalg.vector_norm(factor)
    if not norm.isfinite():
        raise InputError("gradient factors: hold numbers that are not finite.")
    if norm == 0:
        return None
    if factor.shape[1] > factor.shape[0]:
        factor = torch.linalg.qr(factor.T).R.T  # The same Gram matrix from fewer columns.
    return factor / norm
