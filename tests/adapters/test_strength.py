"""The strength of an adapter: a straight line from the target through what was trained."""

import math

import pytest
import torch

from tests.taught import Taught
from tests.training.runs import anchored
from unlora.adapters.anchored import ADAPTER_NAME, factor_parameters, lora_layers
from unlora.adapters.strength import AT_LEVEL, STEP, at_strength, find_strength, set_strength
from unlora.models.forward import completion_logits


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What the adapter adds to every weight, multiplied out."""
    found = {}
    for name, layer in lora_layers(model):
        a, b = factor_parameters(layer)
        found[name] = (layer.scaling[ADAPTER_NAME] * b @ a).detach().clone()
    return found


@pytest.fixture
def moved(taught: Taught):
    """An anchored adapter that has moved."""
    torch.manual_seed(0)
    model = anchored(taught)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            a, b = factor_parameters(layer)
            a[: a.shape[0] // 2] += 0.05 * torch.randn(a.shape[0] // 2, a.shape[1])
            b[:, : b.shape[1] // 2] += 0.05 * torch.randn(b.shape[0], b.shape[1] // 2)
    return model


def test_strength_multiplies_the_update_and_zero_is_the_target_bit_for_bit(moved, taught: Taught):
    batch, trained = taught.batch(), weights(moved)
    with torch.no_grad(), moved.disable_adapter():
        target = completion_logits(moved, batch)
    with torch.no_grad(), at_strength(moved, 0.0):
        assert torch.equal(completion_logits(moved, batch), target)
    with torch.no_grad(), at_strength(moved, 0.3):
        weaker = completion_logits(moved, batch)
    assert all(torch.equal(one, trained[name]) for name, one in weights(moved).items())  # It was for a while only.
    set_strength(moved, 0.3)
    for name, one in weights(moved).items():
        torch.testing.assert_close(one, 0.3 * trained[name])
    with torch.no_grad():
        torch.testing.assert_close(completion_logits(moved, batch), weaker, atol=1e-4, rtol=1e-4)


def test_strength_is_found_where_a_known_curve_meets_the_level():
    asked = []

    def curve(strength: float) -> float:
        asked.append(strength)
        return math.exp(-3 * strength**2)

    found = find_strength(curve, 0.2, most=1.5)
    assert abs(found - math.sqrt(-math.log(0.2) / 3)) <= 2 * STEP
    assert found in asked
    assert len(asked) == len(set(asked)) <= 6


def test_nothing_beyond_the_trained_strength_is_asked_where_training_passed_the_level():
    """Pushed further, an update may well bring the answers back; that does not hide where it met the level."""
    asked = []

    def curve(strength: float) -> float:
        asked.append(strength)
        return math.exp(-6 * strength) if strength <= 1 else 0.9

    found = find_strength(curve, 0.01, most=1.5)
    assert found == pytest.approx(-math.log(0.01) / 6, abs=STEP)
    assert max(asked) == 1.0
    assert found in asked
    assert len(asked) == len(set(asked)) <= 5


@pytest.mark.parametrize(("level", "questions"), [(0.0101, 1), (0.0125, 3), (0.2, 6)])
def test_the_nearer_training_stopped_the_fewer_questions(level: float, questions: int):
    """A curve that falls slowly at first, as those of trained adapters do; 1 % past the level is at it."""
    asked = []

    def curve(strength: float) -> float:
        asked.append(strength)
        return 0.99 * math.exp(math.log(0.01 / 0.99) * strength**3)

    found = find_strength(curve, level, most=1.5)
    exact = (math.log(level / 0.99) / math.log(0.01 / 0.99)) ** (1 / 3)
    assert found == pytest.approx(exact, abs=STEP)
    assert found in asked
    assert len(asked) <= questions


@pytest.mark.parametrize(("trained", "level"), [(0.072, 0.094), (0.049, 0.061), (0.05, 0.1)])
def test_where_the_logarithm_falls_in_a_straight_line_two_questions_do(trained: float, level: float):
    """What was trained, and the place that it points to; the target, which knows its answers, is not asked."""
    asked = []

    def curve(strength: float) -> float:
        asked.append(strength)
        return 0.985 * math.exp(math.log(trained / 0.985) * strength)

    assert curve(find_strength(curve, level, most=1.5)) == pytest.approx(level, rel=AT_LEVEL)
    assert len(set(asked)) == 2


def test_a_target_below_the_level_is_what_is_left():
    """It is not asked at first, and what is asked on the way to it is no higher."""
    assert find_strength(lambda one: 0.05 * math.exp(-one), 0.1, most=1.5) == 0.0


def test_training_that_made_answers_likelier_is_taken_back():
    """The target is below the level, and every strength is further above it."""
    assert find_strength(lambda one: 0.1 + 0.5 * one, 0.2, most=1.5) == 0.0


@pytest.mark.parametrize(("level", "strength"), [(0.001, 1.5), (1.0 - 1e-9, 0.0)])
def test_strength_stays_between_the_target_and_the_most(level: float, strength: float):
    assert find_strength(lambda one: 0.9 * math.exp(-one), level, most=1.5) == strength
