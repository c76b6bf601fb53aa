"""Directions of a model's layers, against explicit per-example gradients."""

import re
from pathlib import Path

import pytest
import torch

from tests.importance.reference import batches_of, examples, gradients
from tests.tiny import build_tiny_model
from unlora.artifacts import read_tensors, write_tensors
from unlora.errors import InputError
from unlora.importance.contrast_map import ContrastMap, estimate_contrast
from unlora.low_rank import contrast_directions
from unlora.models.target_modules import find_target_modules

FORGET, RETAIN = examples(seed=1), examples(seed=2)


def contrast_of(arch="llama", **settings) -> ContrastMap:
    model = build_tiny_model(arch)
    return estimate_contrast(model, batches_of(FORGET, 3), batches_of(RETAIN, 4), **{"rank": 3, **settings})


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_wide_sketch_finds_the_directions_of_the_exact_matrices(arch):
    found = contrast_of(arch, sketch_columns=4000, damping=1.0)
    forget, retain = gradients(arch, FORGET), gradients(arch, RETAIN)
    for name, one in found.items():
        assert one.outputs is not None
        for basis, side in ((one.outputs, (0, 2, 1)), (one.inputs, (0, 1, 2))):
            # All examples' columns side by side are an exact factor of L (of their transposes: of K).
            f, r = (side_by_side(tensors[name].permute(*side)) for tensors in (forget, retain))
            exact = contrast_directions(f, r, rank=3, damping=1.0)
            assert captured(basis, f, r) > 0.9 * captured(exact.basis, f, r)


def side_by_side(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten(0, 1).T


def captured(basis: torch.Tensor, forget: torch.Tensor, retain: torch.Tensor) -> float:
    """Sum of the generalised eigenvalues within the basis: what the exact directions maximise."""
    basis = basis.double()
    d = len(basis)
    inner = basis.T @ retain
    right = inner @ inner.T / retain.square().sum() + torch.eye(basis.shape[1], dtype=torch.double) / d
    projected = basis.T @ forget
    return float(torch.trace(torch.linalg.solve(right, projected @ projected.T)))


def test_round_trip_and_refusals(tmp_path: Path):
    found = contrast_of()
    path = tmp_path / "contrast.safetensors"
    found.save(path)
    loaded = ContrastMap.load(path)
    assert loaded.metadata == found.metadata
    for name, one in found.items():
        assert all(torch.equal(tensor, getattr(loaded[name], field)) for field, tensor in vars(one).items())
    shapes = {name: (t.d_out, t.d_in) for name, t in find_target_modules(build_tiny_model("llama")).items()}
    loaded.refuse_unless_fits(shapes, fingerprint=found.metadata.model_fingerprint, rank=3, where="file")
    with pytest.raises(InputError, match="holds 3 directions, the adapter's rank is 4"):
        loaded.refuse_unless_fits(shapes, fingerprint=None, rank=4, where="file")
    with pytest.raises(InputError, match="another model"):
        loaded.refuse_unless_fits(shapes, fingerprint="0" * 64, rank=3, where="file")
    with pytest.raises(InputError, match="holds no directions for target module 'nowhere'"):
        loaded.refuse_unless_fits({"nowhere": (1, 1)}, fingerprint=None, rank=3, where="file")
    tensors, header = read_tensors(path)
    name = next(name for name in tensors if name.endswith("|outputs"))
    write_tensors(path, tensors | {name: tensors[name].T}, header)
    with pytest.raises(InputError, match=rf"tensor '{re.escape(name)}' is float32 of shape"):
        ContrastMap.load(path)
    del tensors[name]
    write_tensors(path, tensors, header)
    with pytest.raises(InputError, match=rf"incomplete; tensor '{re.escape(name)}' is missing"):
        ContrastMap.load(path)


def test_input_directions_do_not_depend_on_whether_outputs_are_measured(tmp_path: Path):
    both, one = contrast_of(), contrast_of(inputs_only=True)
    path = tmp_path / "inputs.safetensors"
    one.save(path)
    loaded = ContrastMap.load(path)
    for name in both:
        assert torch.equal(loaded[name].inputs, both[name].inputs)
        assert torch.equal(loaded[name].input_eigenvalues, both[name].input_eigenvalues)
        assert loaded[name].outputs is None
    shapes = loaded.metadata.module_shapes
    loaded.refuse_unless_fits(shapes, fingerprint=None, rank=3, where="file", inputs_only=True)
    with pytest.raises(InputError, match="holds input directions only, 'contrast' needs both"):
        loaded.refuse_unless_fits(shapes, fingerprint=None, rank=3, where="file")


def test_model_is_left_as_it_was_and_needs_no_retain_set():
    model = build_tiny_model("llama")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    found = estimate_contrast(model, batches_of(FORGET, 3), None, rank=2)
    assert found.metadata.retain is None
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("inputs_only", [False, True])
def test_retain_set_of_another_model(inputs_only: bool):
    alone = contrast_of(inputs_only=inputs_only)
    same, other = (
        contrast_of(inputs_only=inputs_only, retain_model=build_tiny_model("llama", seed=seed)) for seed in (0, 1)
    )
    assert alone.metadata == same.metadata == other.metadata
    for name, one in alone.items():
        assert torch.equal(one.input_eigenvalues, same[name].input_eigenvalues)
        assert not torch.equal(one.input_eigenvalues, other[name].input_eigenvalues)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 20, "sketch_columns": 16}, "sketch_columns: 16 cannot hold 20"),
        ({"rank": 33, "sketch_columns": 64}, "rank: 33 does not fit .* use 1 to 32"),
    ],
)
def test_too_many_directions(settings, message):
    with pytest.raises(InputError, match=message):
        contrast_of(**settings)
