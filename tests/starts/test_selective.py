"""Minor directions against SciPy's generalised eigenproblem, and the start against a loop over single examples."""

import numpy as np
import pytest
import scipy.linalg
import torch

from tests.taught import PAD, Taught
from unlora.errors import InputError
from unlora.low_rank.minor import minor_directions
from unlora.models.target_modules import find_target_modules
from unlora.starts import StartData, StartInputs, make_start


def moments(d: int, seed: int) -> torch.Tensor:
    x = torch.randn(3 * d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.T @ (x * torch.linspace(0.01, 3, 3 * d, dtype=torch.float64)[:, None])


@pytest.mark.parametrize("skip", [0, 3])
def test_directions_span_what_scipy_finds_on_what_is_left(skip: int):
    d, rank, damping = 12, 4, 0.3
    f, r = moments(d, 1), moments(d, 2)
    basis = minor_directions(f, r, rank=rank, skip=skip, damping=damping)
    s_f, s_r = (f / f.trace()).numpy(), (r / r.trace()).numpy()
    shared = np.linalg.eigh(s_f + s_r)[1][:, d - skip :]
    rest = scipy.linalg.null_space(shared.T) if skip else np.eye(d)
    small_r = rest.T @ s_r @ rest
    small_r += damping * np.trace(small_r) / len(small_r) * np.eye(len(small_r))
    vectors = scipy.linalg.eigh(rest.T @ s_f @ rest, small_r)[1][:, -rank:]
    expected = np.linalg.qr(rest @ vectors)[0]
    np.testing.assert_allclose(basis.numpy() @ basis.numpy().T, expected @ expected.T, atol=1e-8)
    np.testing.assert_allclose(basis.numpy().T @ basis.numpy(), np.eye(rank), atol=1e-10)
    np.testing.assert_allclose(shared.T @ basis.numpy(), 0, atol=1e-10)


def test_what_cannot_be_found_is_refused():
    with pytest.raises(InputError, match="skip fewer"):
        minor_directions(moments(6, 1), None, rank=4, skip=3, damping=1.0)
    with pytest.raises(InputError, match="all zero"):
        minor_directions(torch.zeros(6, 6), None, rank=2, skip=0, damping=1.0)


def test_rows_have_the_asked_length_on_forget_tokens_and_keep_out_of_what_is_shared(taught: Taught):
    model = taught.load().model
    found = find_target_modules(model)
    targets = {name: found[name] for name in list(found)[:3]}
    forget, retain = taught.tokens(taught.forget), taught.tokens(taught.retain)
    inputs = StartInputs(model, targets, StartData(forget, retain, PAD), rank=4, alpha=8.0)
    start = make_start("selective", {"length": 2.0, "batch_size": 3})
    factors = start.begin(inputs, None).factors
    assert factors is not None
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in targets}
    handles = [
        target.module.register_forward_pre_hook(lambda _m, given, name=name: seen[name].append(given[0][0]))
        for name, target in targets.items()
    ]
    with torch.no_grad():
        for one in [*forget, *retain]:
            model(input_ids=torch.tensor([one.input_ids]))
    for handle in handles:
        handle.remove()
    for name, target in targets.items():
        x_f, x_r = torch.cat(seen[name][: len(forget)]).double(), torch.cat(seen[name][len(forget) :]).double()
        given = inputs.scaling * x_f @ factors[name].lora_a.double().T
        torch.testing.assert_close(given.square().mean(0).sqrt(), torch.full((4,), 2.0).double(), atol=1e-3, rtol=1e-3)
        both = x_f.T @ x_f / x_f.square().sum() + x_r.T @ x_r / x_r.square().sum()
        skip = round(0.11 * target.d_in)
        shared = torch.linalg.eigh(both).eigenvectors[:, -skip:]
        assert float((factors[name].lora_a.double() @ shared).abs().max()) < 1e-3 * float(
            factors[name].lora_a.abs().max()
        )
        assert not factors[name].lora_b.any()
