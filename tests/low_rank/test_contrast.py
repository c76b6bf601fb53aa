"""Generalised eigenvectors from thin factors, against scipy's dense solver."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from unlora.errors import InputError
from unlora.low_rank import contrast_directions


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dense_solution(forget: Tensor, retain: Tensor | None, rank: int, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and the projector on the span of the leading generalised eigenvectors, largest first."""
    d = len(forget)
    left = (forget.double() @ forget.double().T).numpy()
    right = np.zeros((d, d)) if retain is None else (retain.double() @ retain.double().T).numpy()
    left /= np.trace(left)
    if np.trace(right) > 0:
        right /= np.trace(right)
    values, vectors = scipy.linalg.eigh(left, right + damping / d * np.eye(d))
    basis = np.linalg.qr(vectors[:, ::-1][:, :rank])[0]
    return values[::-1][:rank], basis @ basis.T


@pytest.mark.parametrize("damping", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize(("d", "forget_columns", "retain_columns"), [(12, 7, 5), (12, 20, 30), (9, 4, 1)])
def test_as_the_dense_generalised_problem(d: int, forget_columns: int, retain_columns: int, damping: float):
    forget, retain = normal(d, forget_columns, seed=1), normal(d, retain_columns, seed=2) * 50
    found = contrast_directions(forget, retain, rank=3, damping=damping)
    values, projector = dense_solution(forget, retain, 3, damping)
    assert found.eigenvalues.numpy() == pytest.approx(values, rel=1e-5)
    assert (found.basis @ found.basis.T).numpy() == pytest.approx(projector, abs=1e-5)
    assert (found.basis.T @ found.basis).numpy() == pytest.approx(np.eye(3), abs=1e-6)


def test_finds_the_direction_that_only_the_forget_set_uses():
    """Most of the forget set's energy lies where the retain set's lies too; a little lies elsewhere, along axis 5."""
    forget, retain = torch.zeros(8, 2), torch.zeros(8, 3)
    forget[0, 0], forget[5, 1] = 10.0, 1.0
    retain[0, 0], retain[1, 1], retain[2, 2] = 10.0, 3.0, 3.0
    found = contrast_directions(forget, retain, rank=1, damping=0.01)
    assert found.basis[:, 0].abs().tolist() == pytest.approx([0, 0, 0, 0, 0, 1, 0, 0], abs=1e-3)
    # Share 1/101 of the forget energy over a damping of 0.01/8.
    assert float(found.eigenvalues[0]) == pytest.approx((1 / 101) / (0.01 / 8), rel=1e-3)


@pytest.mark.parametrize("retain", [None, torch.zeros(7, 4)])
def test_without_retain_energy_the_leading_singular_vectors(retain: Tensor | None):
    forget = normal(7, 5, seed=3)
    found = contrast_directions(forget, retain, rank=2, damping=1.0)
    left = torch.linalg.svd(forget).U[:, :2]
    assert torch.allclose(found.basis @ found.basis.T, left @ left.T, atol=1e-5)


def test_scale_of_either_set_does_not_matter():
    forget, retain = normal(10, 6, seed=4), normal(10, 6, seed=5)
    one = contrast_directions(forget, retain, rank=2, damping=0.1)
    other = contrast_directions(forget * 1e-12, retain * 1e12, rank=2, damping=0.1)
    assert torch.allclose(one.eigenvalues, other.eigenvalues, rtol=1e-4)
    assert torch.allclose(one.basis @ one.basis.T, other.basis @ other.basis.T, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"damping": 0.0}, "damping: must be positive"),
        ({"rank": 4}, "rank: must lie between 1 and 3"),
        ({"forget": torch.zeros(6, 3)}, "all zero"),
        ({"retain": torch.full((6, 3), float("inf"))}, "not finite"),
    ],
)
def test_refusals(change: dict, message: str):
    given = {"forget": normal(6, 3, seed=6), "retain": normal(6, 3, seed=7), "rank": 2, "damping": 1.0} | change
    with pytest.raises(InputError, match=message):
        contrast_directions(given.pop("forget"), given.pop("retain"), **given)
