import math

import pytest
import torch

from tests.losses.examples import AllLogits, finite_differences, forget_inputs, random_predictions, scored_tokens
from unlora.errors import InputError
from unlora.losses import GradientAscent, Predictions, SatImp, WeightedAscent


def naive_ga(predictions: Predictions) -> list[float]:
    examples = scored_tokens(predictions)
    return [sum(math.log(probs[token]) for probs, token in example) / len(example) for example in examples]


def naive_weighted(predictions: Predictions, beta1: float, beta2: float, frozen: Predictions) -> list[float]:
    """Weights from `frozen`, logarithms from `predictions`."""
    values = []
    for example, weighing in zip(scored_tokens(predictions), scored_tokens(frozen), strict=True):
        total = 0.0
        for (probs, token), (weights, _) in zip(example, weighing, strict=True):
            known = float(weights[token])
            total += known**beta1 * (1 - known) ** beta2 * math.log(probs[token])
        values.append(total / len(example))
    return values


def test_gradient_ascent_equals_naive_formula() -> None:
    inputs = forget_inputs()
    assert GradientAscent()(inputs).tolist() == pytest.approx(naive_ga(inputs.predictions), rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 3.0])
def test_weighted_ascent_equals_naive_formula(beta: float) -> None:
    inputs = forget_inputs()
    expected = naive_weighted(inputs.predictions, beta, 0.0, inputs.predictions)
    assert WeightedAscent(beta)(inputs).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("beta1", "beta2"), [(5.0, 1.0), (0.0, 1.0), (2.0, 0.5)])
def test_satimp_equals_naive_formula(beta1: float, beta2: float) -> None:
    inputs = forget_inputs()
    expected = naive_weighted(inputs.predictions, beta1, beta2, inputs.predictions)
    assert SatImp(beta1, beta2)(inputs).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("term", "beta1", "beta2"),
    [(WeightedAscent(1.5), 1.5, 0.0), (SatImp(5.0, 1.0), 5.0, 1.0), (SatImp(0.0, 2.0), 0.0, 2.0)],
)
def test_weights_pass_no_gradient_on(term: WeightedAscent | SatImp, beta1: float, beta2: float) -> None:
    """Autograd equals the finite differences of the formula with its weights frozen."""
    frozen = random_predictions()
    logits = frozen.logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(term(forget_inputs(AllLogits(logits, frozen.labels))).sum(), logits)
    expected = finite_differences(frozen, lambda moved: sum(naive_weighted(moved, beta1, beta2, frozen)))
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)


def test_weighted_ascent_without_weights_is_gradient_ascent() -> None:
    inputs = forget_inputs()
    torch.testing.assert_close(WeightedAscent(0.0)(inputs), GradientAscent()(inputs), rtol=0, atol=0)
    torch.testing.assert_close(SatImp(0.0, 0.0)(inputs), GradientAscent()(inputs), rtol=0, atol=0)
    torch.testing.assert_close(SatImp(2.0, 0.0)(inputs), WeightedAscent(2.0)(inputs), rtol=0, atol=0)


def test_forgotten_tokens_are_let_go() -> None:
    """A token at probability 1e-6 pushes a million times less than under gradient ascent."""
    logits = torch.log(torch.tensor([[[1e-6, 1 - 1e-6]]], dtype=torch.float64)).requires_grad_()
    inputs = forget_inputs(AllLogits(logits, torch.zeros(1, 1, dtype=torch.long)))
    (plain,) = torch.autograd.grad(GradientAscent()(inputs).sum(), logits, retain_graph=True)
    (weighted,) = torch.autograd.grad(WeightedAscent()(inputs).sum(), logits)
    torch.testing.assert_close(weighted, 1e-6 * plain)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_exponents_out_of_range_are_refused(value: float) -> None:
    for make in (lambda: WeightedAscent(value), lambda: SatImp(beta1=value), lambda: SatImp(beta2=value)):
        with pytest.raises(InputError, match=r"beta\d?"):
            make()
