import math

import pytest
import torch

from tests.losses.examples import forget_inputs, random_states, retain_inputs, states_of_examples
from unlora.errors import InputError
from unlora.losses import AdaptiveSteering, RetainHiddenStates, Steering
from unlora.losses.steering import random_direction


@pytest.mark.parametrize(("coefficient", "seed"), [(6.5, 0), (0.5, 4)])
def test_steering_equals_naive_formula(coefficient: float, seed: int) -> None:
    inputs = forget_inputs()
    assert inputs.hidden_states is not None
    goal = [coefficient * entry for entry in random_direction(6, seed).tolist()]
    expected = []
    for states in states_of_examples(inputs.predictions, inputs.hidden_states):
        distances = [sum((a - b) ** 2 for a, b in zip(one.tolist(), goal, strict=True)) / 6 for one in states]
        expected.append(sum(distances) / len(distances))
    assert Steering(coefficient, seed=seed)(inputs).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("coefficient", "seed"), [(5.0, 0), (0.5, 4)])
def test_adaptive_steering_equals_naive_formula(coefficient: float, seed: int) -> None:
    inputs = forget_inputs()
    assert inputs.hidden_states is not None
    assert inputs.reference_hidden_states is not None
    direction = random_direction(6, seed).tolist()
    expected = []
    for states, reference in zip(
        states_of_examples(inputs.predictions, inputs.hidden_states),
        states_of_examples(inputs.predictions, inputs.reference_hidden_states),
        strict=True,
    ):
        total = 0.0
        for one, other in zip(states, reference, strict=True):
            length = math.sqrt(sum(x**2 for x in other.tolist()))
            pairs = zip(one.tolist(), direction, strict=True)
            total += sum((x - coefficient * length * u) ** 2 for x, u in pairs) / 6
        expected.append(total / len(states))
    assert AdaptiveSteering(coefficient, seed=seed)(inputs).tolist() == pytest.approx(expected, rel=1e-12)


def test_adaptive_steering_of_references_of_one_length_is_steering() -> None:
    inputs = forget_inputs()
    assert inputs.reference_hidden_states is not None
    reference = 3.0 * torch.nn.functional.normalize(inputs.reference_hidden_states, dim=-1)
    even = forget_inputs(reference_hidden_states=reference)
    torch.testing.assert_close(AdaptiveSteering(2.0)(even), Steering(6.0)(even))


def test_retained_states_equal_naive_formula() -> None:
    inputs = retain_inputs()
    assert inputs.hidden_states is not None
    assert inputs.reference_hidden_states is not None
    moved = states_of_examples(inputs.predictions, inputs.hidden_states - inputs.reference_hidden_states)
    expected = [sum(sum(x**2 for x in one.tolist()) / 6 for one in example) / len(example) for example in moved]
    assert RetainHiddenStates()(inputs).tolist() == pytest.approx(expected, rel=1e-12)


def test_both_rest_at_their_goal() -> None:
    count = int(forget_inputs().predictions.token_counts.sum())
    goal = (2.0 * random_direction(6, 0)).expand(count, 6)
    assert Steering(2.0)(forget_inputs(hidden_states=goal)).tolist() == pytest.approx([0, 0, 0], abs=1e-30)
    states = random_states(count, seed=1).requires_grad_()
    value = RetainHiddenStates()(retain_inputs(hidden_states=states, reference_hidden_states=states.detach()))
    (gradient,) = torch.autograd.grad(value.sum(), states)
    assert value.tolist() == [0, 0, 0]
    assert gradient.count_nonzero() == 0


def test_direction_is_of_length_one_positive_and_follows_from_the_seed() -> None:
    direction = random_direction(1000, 3)
    assert float(direction.norm()) == pytest.approx(1)
    assert (direction >= 0).all()
    assert float(direction.std() / direction.mean()) == pytest.approx(1 / math.sqrt(3), rel=0.05)  # uniform in [0, 1)
    assert torch.equal(direction, random_direction(1000, 3))
    assert not torch.equal(direction, random_direction(1000, 4))


def test_parameters_out_of_range_are_refused() -> None:
    for term in (Steering, AdaptiveSteering, RetainHiddenStates):
        with pytest.raises(InputError, match="rmu: block must be a whole number >= 0, found -1"):
            term(block=-1)
    for term in (Steering, AdaptiveSteering):
        with pytest.raises(InputError, match="rmu: coefficient must be a positive number"):
            term(0.0)
