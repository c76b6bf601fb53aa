import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.losses.examples import AllLogits, finite_differences, forget_inputs, random_predictions, scored_tokens
from unlora.errors import InputError
from unlora.losses import CrossEntropyUnlearning, InvertedHinge, Predictions, RefusalNLL, Undial


def naive_ihl(predictions: Predictions) -> list[float]:
    def hinge(probs: Tensor, token: int) -> float:
        return 1 + float(probs[token]) - max(float(prob) for other, prob in enumerate(probs) if other != token)

    return [sum(hinge(*scored) for scored in example) / len(example) for example in scored_tokens(predictions)]


def cross_entropy(target: list[float], probs: Tensor) -> float:
    return -sum(wanted * math.log(prob) for wanted, prob in zip(target, probs.tolist(), strict=True))


def naive_undial(predictions: Predictions, reference: Predictions, strength: float) -> list[float]:
    values = []
    for example, teacher in zip(scored_tokens(predictions), scored_tokens(reference), strict=True):
        total = 0.0
        for (probs, token), (teacher_probs, _) in zip(example, teacher, strict=True):
            odds = [math.exp(math.log(prob) - strength * (v == token)) for v, prob in enumerate(teacher_probs.tolist())]
            total += cross_entropy([one / sum(odds) for one in odds], probs)
        values.append(total / len(example))
    return values


def naive_ce_u(predictions: Predictions, skip: int, frozen: Predictions) -> list[float]:
    """Targets from `frozen`."""
    values = []
    for example, fixed in zip(scored_tokens(predictions), scored_tokens(frozen), strict=True):
        first = min(skip, len(example) - 1)
        total = 0.0
        for (probs, token), (target_probs, _) in list(zip(example, fixed, strict=True))[first:]:
            others = [prob * (v != token) for v, prob in enumerate(target_probs.tolist())]
            total += cross_entropy([one / sum(others) for one in others], probs)
        values.append(total / (len(example) - first))
    return values


def test_inverted_hinge_equals_naive_formula() -> None:
    inputs = forget_inputs()
    assert InvertedHinge()(inputs).tolist() == pytest.approx(naive_ihl(inputs.predictions), rel=1e-12)


def test_refusal_nll_equals_naive_formula() -> None:
    inputs = forget_inputs()
    examples = scored_tokens(inputs.predictions)  # of the refusals, for a term with completion = "refusal"
    expected = [-sum(math.log(probs[token]) for probs, token in example) / len(example) for example in examples]
    assert RefusalNLL()(inputs).tolist() == pytest.approx(expected, rel=1e-12)
    assert RefusalNLL.completion == "refusal"


@pytest.mark.parametrize("strength", [0.0, 1.0, 10.0])
def test_undial_equals_naive_formula(strength: float) -> None:
    inputs = forget_inputs()
    assert inputs.reference is not None
    expected = naive_undial(inputs.predictions, inputs.reference, strength)
    assert Undial(strength)(inputs).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("skip", [0, 1, 2, 9])
def test_ce_u_equals_naive_formula(skip: int) -> None:
    """The third example has one token, which always counts."""
    inputs = forget_inputs()
    expected = naive_ce_u(inputs.predictions, skip, inputs.predictions)
    assert CrossEntropyUnlearning(skip)(inputs).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("skip", [0, 1])
def test_ce_u_target_passes_no_gradient_on(skip: int) -> None:
    frozen = random_predictions()
    logits = frozen.logits.clone().requires_grad_()
    policy = forget_inputs(AllLogits(logits, frozen.labels))
    (gradient,) = torch.autograd.grad(CrossEntropyUnlearning(skip)(policy).sum(), logits)
    expected = finite_differences(frozen, lambda moved: sum(naive_ce_u(moved, skip, frozen)))
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)


def test_ce_u_gradient_does_not_vanish_where_the_token_is_known_by_heart() -> None:
    """Gradient ascent's is 1 - p on the true logit, here 1e-9; CE-U's is p - q, with q = 0."""
    logits = torch.tensor([[[1 - 1e-9, 0.5e-9, 0.5e-9]]], dtype=torch.float64).log().requires_grad_()
    inputs = forget_inputs(AllLogits(logits, torch.zeros(1, 1, dtype=torch.long)))
    (gradient,) = torch.autograd.grad(CrossEntropyUnlearning()(inputs).sum(), logits)
    torch.testing.assert_close(gradient[0, 0], torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64))


def test_undial_without_strength_rests_at_the_reference() -> None:
    """Plain distillation: the gradient is 0 at the reference, and the value the reference's entropy."""
    predictions = random_predictions()
    logits = predictions.logits.clone().requires_grad_()
    value = Undial(0.0)(forget_inputs(AllLogits(logits, predictions.labels), reference=predictions))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert float(gradient.abs().max()) < 1e-15
    entropies = [[cross_entropy(probs.tolist(), probs) for probs, _ in one] for one in scored_tokens(predictions)]
    assert value.tolist() == pytest.approx([sum(one) / len(one) for one in entropies], rel=1e-12)


def test_undial_of_great_strength_at_the_reference_is_ce_u() -> None:
    predictions = random_predictions()
    inputs = forget_inputs(predictions, reference=predictions)
    torch.testing.assert_close(Undial(1e3)(inputs), CrossEntropyUnlearning(0)(inputs), rtol=1e-12, atol=0)


def test_tokens_that_every_model_rules_out_do_no_harm() -> None:
    """Logits of -inf, as some models give to unused entries of the vocabulary."""
    labels = torch.zeros(1, 1, dtype=torch.long)
    logits = torch.tensor([[[0.3, -0.2, -math.inf]]], dtype=torch.float64).requires_grad_()
    policy = AllLogits(logits, labels)
    inputs = forget_inputs(policy, reference=AllLogits(logits.detach() / 2, labels))
    without = forget_inputs(
        AllLogits(logits.detach()[..., :2], labels), reference=AllLogits(logits.detach()[..., :2] / 2, labels)
    )
    for term in (Undial(1.0), CrossEntropyUnlearning(0), InvertedHinge()):
        value = term(inputs)
        torch.testing.assert_close(value.detach(), term(without))
        (gradient,) = torch.autograd.grad(value.sum(), logits, retain_graph=True)
        assert gradient.isfinite().all()


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=9), st.integers(0, 8))
def test_inverted_hinge_lies_between_0_and_2(logits: list[float], token: int) -> None:
    predictions = AllLogits(torch.tensor([[logits]]), torch.tensor([[token % len(logits)]]))
    assert 0 <= float(InvertedHinge()(dataclasses.replace(forget_inputs(), predictions=predictions))) <= 2


def test_inverted_hinge_reaches_its_bounds() -> None:
    def value(true_logit: float, other_logit: float) -> float:
        logits = torch.tensor([[[true_logit, other_logit, -1e4]]])
        return float(InvertedHinge()(forget_inputs(AllLogits(logits, torch.zeros(1, 1, dtype=torch.long)))))

    assert value(1e4, 0.0) == 2.0
    assert value(0.0, 1e4) == 0.0
    assert value(3.0, 3.0) == 1.0  # a tie with the true token


def test_inverted_hinge_of_tied_runners_up_is_the_plain_formula() -> None:
    logits = torch.log(torch.tensor([[[0.2, 0.4, 0.4]]], dtype=torch.float64))
    value = InvertedHinge()(forget_inputs(AllLogits(logits, torch.zeros(1, 1, dtype=torch.long))))
    assert float(value) == pytest.approx(1 + 0.2 - 0.4)


def test_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="undial: strength must be a number >= 0"):
        Undial(-1.0)
    with pytest.raises(InputError, match="ce_u: skip_tokens must be a number >= 0"):
        CrossEntropyUnlearning(-1)
