import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.losses.examples import AllLogits, logits_of, random_predictions, retain_inputs, scored_tokens
from unlora.losses import RetainKL, RetainNLL


def test_retain_nll_equals_cross_entropy_of_each_example() -> None:
    predictions = random_predictions()
    expected = [cross_entropy(*example) for example in zip(predictions.logits, predictions.labels, strict=True)]
    torch.testing.assert_close(RetainNLL()(retain_inputs(predictions)), torch.stack(expected))


def test_kl_equals_naive_formula() -> None:
    inputs = retain_inputs()
    assert inputs.reference is not None
    expected = []
    for example, reference in zip(scored_tokens(inputs.predictions), scored_tokens(inputs.reference), strict=True):
        total = 0.0
        for (probs, _), (reference_probs, _) in zip(example, reference, strict=True):
            for prob, reference_prob in zip(probs.tolist(), reference_probs.tolist(), strict=True):
                total += reference_prob * math.log(reference_prob / prob)
        expected.append(total / len(example))
    assert RetainKL()(inputs).tolist() == pytest.approx(expected, rel=1e-12)
    assert min(expected) > 0


def test_kl_at_the_reference_is_zero_with_zero_gradient() -> None:
    predictions = random_predictions()
    logits = predictions.logits.clone().requires_grad_()
    value = RetainKL()(retain_inputs(AllLogits(logits, predictions.labels), reference=predictions))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.tolist() == [0, 0, 0]
    assert float(gradient.abs().max()) < 1e-15


def test_kl_does_not_depend_on_the_labels() -> None:
    """It compares whole distributions: which token was the right one does not matter, where tokens are scored does."""
    inputs = retain_inputs()
    assert inputs.reference is not None
    labels = torch.where(inputs.predictions.mask, 0, inputs.predictions.labels)
    other = retain_inputs(
        AllLogits(logits_of(inputs.predictions), labels), reference=AllLogits(logits_of(inputs.reference), labels)
    )
    assert torch.equal(RetainKL()(other), RetainKL()(inputs))


def test_kl_counts_tokens_that_both_rule_out_as_zero() -> None:
    labels = torch.zeros(1, 1, dtype=torch.long)
    logits = torch.tensor([[[0.3, -0.2, -math.inf]]], dtype=torch.float64).requires_grad_()
    reference = torch.tensor([[[0.1, 0.9, -math.inf]]], dtype=torch.float64)
    value = RetainKL()(retain_inputs(AllLogits(logits, labels), reference=AllLogits(reference, labels)))
    without = retain_inputs(
        AllLogits(logits.detach()[..., :2], labels), reference=AllLogits(reference[..., :2], labels)
    )
    torch.testing.assert_close(value.detach(), RetainKL()(without))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.isfinite().all()
