import math

import pytest
import torch
from torch import Tensor

from tests.losses.examples import random_predictions, scored_tokens
from unlora.errors import InputError
from unlora.losses import FORGET_TERMS, NOT_SCORED, NPO, ForgetTerm, GradientAscent, InvertedHinge, Predictions

TERMS = [GradientAscent(), NPO(0.1), NPO(2.0), InvertedHinge()]
REFERENCE = torch.tensor([-6.0, -3.0, -2.5], dtype=torch.float64)


def naive_ga(predictions: Predictions) -> list[float]:
    examples = scored_tokens(predictions)
    return [sum(math.log(probs[token]) for probs, token in example) / len(example) for example in examples]


def naive_npo(predictions: Predictions, reference: Tensor, beta: float) -> list[float]:
    ratios = [
        math.exp(sum(math.log(probs[token]) for probs, token in example)) / math.exp(log_prob)
        for example, log_prob in zip(scored_tokens(predictions), reference.tolist(), strict=True)
    ]
    return [2 / beta * math.log(1 + ratio**beta) for ratio in ratios]  # equation 3 of the paper, second form


def naive_ihl(predictions: Predictions) -> list[float]:
    def hinge(probs: Tensor, token: int) -> float:
        return 1 + float(probs[token]) - max(float(prob) for other, prob in enumerate(probs) if other != token)

    return [sum(hinge(*scored) for scored in example) / len(example) for example in scored_tokens(predictions)]


def test_gradient_ascent_equals_naive_formula() -> None:
    predictions = random_predictions()
    assert GradientAscent()(predictions, None).tolist() == pytest.approx(naive_ga(predictions), rel=1e-12)


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_npo_equals_naive_formula(beta: float) -> None:
    predictions = random_predictions()
    expected = naive_npo(predictions, REFERENCE, beta)
    assert NPO(beta)(predictions, REFERENCE).tolist() == pytest.approx(expected, rel=1e-12)


def test_inverted_hinge_equals_naive_formula() -> None:
    predictions = random_predictions()
    assert InvertedHinge()(predictions, None).tolist() == pytest.approx(naive_ihl(predictions), rel=1e-12)


@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_gradient_equals_finite_differences(term: ForgetTerm) -> None:
    predictions = random_predictions()
    assert torch.autograd.gradcheck(
        lambda logits: term(Predictions(logits, predictions.labels), REFERENCE),
        predictions.logits.clone().requires_grad_(),
    )


@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_unscored_logits_change_nothing_even_when_infinite(term: ForgetTerm) -> None:
    predictions = random_predictions()
    spoilt = predictions.logits.clone()
    spoilt[~predictions.mask] = math.nan
    spoilt.requires_grad_()
    value = term(Predictions(spoilt, predictions.labels), REFERENCE)
    assert torch.equal(value.detach(), term(predictions, REFERENCE))
    (gradient,) = torch.autograd.grad(value.sum(), spoilt)
    assert (gradient[~predictions.mask] == 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_more_padding_and_other_examples_change_nothing(term: ForgetTerm) -> None:
    predictions = random_predictions()
    padded = Predictions(
        torch.nn.functional.pad(predictions.logits, (0, 0, 2, 3), value=5.0),
        torch.nn.functional.pad(predictions.labels, (2, 3), value=NOT_SCORED),
    )
    expected = term(predictions, REFERENCE)
    torch.testing.assert_close(term(padded, REFERENCE), expected, rtol=1e-14, atol=0)
    alone = Predictions(predictions.logits[1:2], predictions.labels[1:2])
    torch.testing.assert_close(term(alone, REFERENCE[1:2]), expected[1:2], rtol=1e-14, atol=0)


def test_npo_gradient_tends_to_gradient_ascent_as_beta_vanishes() -> None:
    predictions = random_predictions()
    logits = predictions.logits.clone().requires_grad_()
    policy = Predictions(logits, predictions.labels)
    (ascent,) = torch.autograd.grad((GradientAscent()(policy, None) * policy.token_counts).sum(), logits)
    errors = []
    for beta in (1e-1, 1e-2, 1e-6):
        (gradient,) = torch.autograd.grad(NPO(beta)(policy, REFERENCE).sum(), logits)
        errors.append(float((gradient - ascent).norm() / ascent.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


def test_npo_gradient_fades_where_the_completion_is_forgotten() -> None:
    predictions = random_predictions()
    logits = predictions.logits.clone().requires_grad_()
    policy = Predictions(logits, predictions.labels)
    sequence_log_probs = policy.sequence_log_probs()
    (ascent,) = torch.autograd.grad(sequence_log_probs.sum(), logits, retain_graph=True)
    log_ratio = torch.tensor([-40.0, 0.0, 40.0], dtype=torch.float64)  # forgotten, untouched, likelier than before
    (gradient,) = torch.autograd.grad(NPO(0.5)(policy, sequence_log_probs.detach() - log_ratio).sum(), logits)
    weights = gradient.flatten(1).norm(dim=1) / ascent.flatten(1).norm(dim=1)
    torch.testing.assert_close(weights, 2 * torch.sigmoid(0.5 * log_ratio), rtol=1e-9, atol=1e-12)


def test_inverted_hinge_lies_between_its_bounds() -> None:
    def value(true_logit: float, other_logit: float) -> float:
        logits = torch.tensor([[[true_logit, other_logit, -1e4]]])
        return float(InvertedHinge()(Predictions(logits, torch.zeros(1, 1, dtype=torch.long)), None))

    assert value(1e4, 0.0) == 2.0
    assert value(0.0, 1e4) == 0.0
    assert value(3.0, 3.0) == 1.0  # a tie with the true token
    for seed in range(20):
        values = InvertedHinge()(random_predictions(seed=seed, dtype=torch.float32), None)
        assert ((values >= 0) & (values <= 2)).all()


def test_inverted_hinge_of_tied_runners_up_is_the_plain_formula() -> None:
    logits = torch.log(torch.tensor([[[0.2, 0.4, 0.4]]], dtype=torch.float64))
    value = InvertedHinge()(Predictions(logits, torch.zeros(1, 1, dtype=torch.long)), None)
    assert float(value) == pytest.approx(1 + 0.2 - 0.4)


def test_npo_without_reference_is_refused() -> None:
    with pytest.raises(InputError, match="reference_log_probs"):
        NPO()(random_predictions(), None)


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_npo_with_beta_out_of_range_is_refused(beta: float) -> None:
    with pytest.raises(InputError, match="beta must be a positive number"):
        NPO(beta)


def test_every_term_says_what_it_is_and_works_without_arguments() -> None:
    for name, term in FORGET_TERMS.items():
        assert term.name == name
        assert term.summary.endswith(".")
        assert term.paper.startswith("arXiv ")
        assert term()(random_predictions(), REFERENCE).shape == (3,)
