"""The sketch's Gram matrices tend to L = sum G G^T and K = sum G^T G as it gets wider."""

import pytest
import torch
from torch import Tensor

from tests.importance.test_spaces import explicit, random_pair
from unlora.importance.sketch import GradientSketch


def sketched(columns: int, batches: list[tuple[Tensor, Tensor]], *, seed: int = 0) -> GradientSketch:
    sketch = GradientSketch("layer", (6, 5), columns=columns, seed=seed, device=torch.device("cpu"))
    for inputs, output_gradients in batches:
        sketch.update(inputs, output_gradients)
    return sketch


def relative_error(sketch: Tensor, exact: Tensor) -> float:
    return float((sketch.double() @ sketch.double().T - exact).norm() / exact.norm())


@pytest.mark.parametrize("side", ["outputs", "inputs"])
def test_error_falls_with_the_square_root_of_the_columns(side: str):
    pair = random_pair(7)
    gradients = explicit(*pair)
    exact = torch.einsum("bij,bkj->ik" if side == "outputs" else "bji,bjk->ik", gradients, gradients)
    errors = {
        columns: sum(relative_error(getattr(sketched(columns, [pair], seed=seed), side), exact) for seed in range(5))
        / 5
        for columns in (100, 10_000)
    }
    assert errors[10_000] < 0.04
    assert 5 < errors[100] / errors[10_000] < 20  # ten, but for chance


def test_examples_do_not_mix():
    """Two examples with opposite gradients: their sum is zero, their energies are not."""
    inputs, output_gradients = random_pair(1)
    pair = torch.cat([inputs, inputs]), torch.cat([output_gradients, -output_gradients])
    gradient = explicit(inputs, output_gradients)[0]
    assert relative_error(sketched(20_000, [pair]).outputs, 2 * gradient @ gradient.T) < 0.05


def test_batches_do_not_matter_in_expectation_and_empty_positions_not_at_all():
    inputs, output_gradients = random_pair(6)
    padding = torch.zeros(6, 4, 6)
    padded = torch.cat([inputs, torch.ones(6, 4, 5)], dim=1), torch.cat([output_gradients, padding], dim=1)
    one, other = sketched(8, [(inputs, output_gradients)]), sketched(8, [padded])
    assert torch.allclose(one.outputs, other.outputs, atol=1e-5)
    assert torch.allclose(one.inputs, other.inputs, atol=1e-5)


def test_inputs_alone_are_the_same():
    pair = random_pair(3)
    both = sketched(8, [pair])
    alone = GradientSketch("layer", (6, 5), columns=8, seed=0, device=torch.device("cpu"), inputs_only=True)
    alone.update(*pair)
    assert alone.outputs is None
    assert torch.equal(alone.inputs, both.inputs)


def test_probes_depend_on_name_and_seed():
    pair = random_pair(2)
    assert torch.equal(sketched(4, [pair]).outputs, sketched(4, [pair]).outputs)
    assert not torch.equal(sketched(4, [pair]).outputs, sketched(4, [pair], seed=1).outputs)
