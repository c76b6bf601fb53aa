"""Directions in which one set is large and another small, once what both have most of is left out."""

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.errors import InputError

SecondMoment = Float[Tensor, "d d"]


@torch.no_grad()
def minor_directions(
    forget: SecondMoment, retain: SecondMoment | None, *, rank: int, skip: int, damping: float
) -> Float[Tensor, "d rank"]:
    """Leading generalised eigenvectors of (C S_f C, C S_r C + damping), orthonormal, C = I - Q Q^T.

    Q holds the `skip` leading eigenvectors of S_f / tr S_f + S_r / tr S_r: what the inputs of both sets have most of.
    Updates in such components are the ones that relearning a few examples reverses for all (RepSelect,
    arXiv 2606.17168; MCU, arXiv 2605.11685).

    Args:
        forget: S_f, symmetric, not negative.
        retain: S_r; None counts as zero.
        rank: how many directions.
        skip: how many leading components are left out.
        damping: of S_r on the range of C, in units of its mean eigenvalue there (of S_f's without a retain set); > 0.

    Returns:
        An orthonormal basis, at right angles to the components that are left out; float64.

    Raises:
        InputError: fewer than `rank` directions are left, damping is not positive, or S_f is zero.
    """
    d = forget.shape[0]
    if damping <= 0:
        raise InputError(f"damping: must be positive, found {damping}.")
    if rank > d - skip:
        raise InputError(f"{d - skip} of {d} directions are left, fewer than the rank {rank}; skip fewer.")
    s_f, s_r = _of_trace_one(forget), _of_trace_one(retain) if retain is not None else None
    if s_f is None:
        raise InputError("forget: all zero; there is no direction to find.")
    both = s_f if s_r is None else s_f + s_r
    rest = torch.linalg.eigh(both).eigenvectors[:, : d - skip]
    f = rest.T @ s_f @ rest
    r = torch.zeros_like(f) if s_r is None else rest.T @ s_r @ rest
    unit = r.trace() if s_r is not None and r.trace() > 0 else f.trace()
    r.diagonal().add_(damping * unit / len(r) + torch.finfo(r.dtype).tiny)
    factor = torch.linalg.cholesky(r)
    half = torch.linalg.solve_triangular(factor, f, upper=False)
    whitened = torch.linalg.solve_triangular(factor, half.T, upper=False)
    leading = torch.linalg.eigh((whitened + whitened.T) / 2).eigenvectors[:, -rank:].flip(1)
    return torch.linalg.qr(rest @ torch.linalg.solve_triangular(factor.T, leading, upper=True)).Q


def _of_trace_one(moment: SecondMoment) -> SecondMoment | None:
    moment = moment.double()
    if not moment.isfinite().all():
        raise InputError("second moments: hold numbers that are not finite.")
    trace = moment.trace()
    return moment / trace if trace > 0 else None
