import dataclasses
import math

import pytest
import torch
from torch import Tensor

from tests.losses.examples import (
    REFERENCE_LOG_PROBS,
    AllLogits,
    forget_inputs,
    logits_of,
    random_predictions,
    scored_tokens,
)
from unlora.errors import InputError
from unlora.losses import DPO, NPO, ForgetInputs, GradientAscent, Predictions, SimNPO


def sequence_probs(predictions: Predictions) -> list[float]:
    return [math.prod(float(probs[token]) for probs, token in example) for example in scored_tokens(predictions)]


def naive_npo(predictions: Predictions, reference: Tensor, beta: float) -> list[float]:
    probs = zip(sequence_probs(predictions), reference.tolist(), strict=True)
    ratios = [prob / math.exp(log_prob) for prob, log_prob in probs]
    return [2 / beta * math.log(1 + ratio**beta) for ratio in ratios]  # equation 3 of the paper, second form


def naive_simnpo(predictions: Predictions, beta: float, gamma: float) -> list[float]:
    values = []
    for example, prob in zip(scored_tokens(predictions), sequence_probs(predictions), strict=True):
        push = -(beta / len(example)) * math.log(prob) - gamma
        values.append(-(2 / beta) * math.log(1 / (1 + math.exp(-push))))
    return values


def naive_dpo(inputs: ForgetInputs, beta: float) -> list[float]:
    assert inputs.refusal is not None
    assert inputs.reference_log_probs is not None
    assert inputs.refusal_reference_log_probs is not None
    values = []
    for refusal, answer, refusal_reference, answer_reference in zip(
        sequence_probs(inputs.refusal),
        sequence_probs(inputs.predictions),
        inputs.refusal_reference_log_probs.exp().tolist(),
        inputs.reference_log_probs.exp().tolist(),
        strict=True,
    ):
        preferred = (refusal / refusal_reference) ** beta
        rejected = (answer / answer_reference) ** beta
        values.append(-(2 / beta) * math.log(preferred / (preferred + rejected)))  # Bradley and Terry's form
    return values


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_npo_equals_naive_formula(beta: float) -> None:
    inputs = forget_inputs()
    expected = naive_npo(inputs.predictions, REFERENCE_LOG_PROBS, beta)
    assert NPO(beta)(inputs).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("beta", "gamma"), [(4.5, 0.0), (0.3, 0.0), (2.5, 0.7), (1.0, -2.0)])
def test_simnpo_equals_naive_formula(beta: float, gamma: float) -> None:
    inputs = forget_inputs()
    expected = naive_simnpo(inputs.predictions, beta, gamma)
    assert SimNPO(beta, gamma)(inputs).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.0])
def test_dpo_equals_naive_formula(beta: float) -> None:
    inputs = forget_inputs()
    assert DPO(beta)(inputs).tolist() == pytest.approx(naive_dpo(inputs, beta), rel=1e-12)


def test_npo_gradient_tends_to_gradient_ascent_as_beta_vanishes() -> None:
    predictions = random_predictions()
    logits = predictions.logits.clone().requires_grad_()
    inputs = forget_inputs(AllLogits(logits, predictions.labels))
    (ascent,) = torch.autograd.grad(
        (GradientAscent()(inputs) * predictions.token_counts).sum(), logits, retain_graph=True
    )
    errors = []
    for beta in (1e-1, 1e-2, 1e-6):
        (gradient,) = torch.autograd.grad(NPO(beta)(inputs).sum(), logits, retain_graph=True)
        errors.append(float((gradient - ascent).norm() / ascent.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


def test_simnpo_gradient_tends_to_gradient_ascent_per_token_as_beta_vanishes() -> None:
    predictions = random_predictions()
    logits = predictions.logits.clone().requires_grad_()
    inputs = forget_inputs(AllLogits(logits, predictions.labels))
    (ascent,) = torch.autograd.grad(GradientAscent()(inputs).sum(), logits, retain_graph=True)
    errors = []
    for beta in (1e-1, 1e-2, 1e-6):
        (gradient,) = torch.autograd.grad(SimNPO(beta)(inputs).sum(), logits, retain_graph=True)
        errors.append(float((gradient - ascent).norm() / ascent.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


def test_npo_gradient_fades_where_the_completion_is_forgotten() -> None:
    predictions = random_predictions()
    logits = predictions.logits.clone().requires_grad_()
    policy = AllLogits(logits, predictions.labels)
    sequence_log_probs = policy.sequence_log_probs()
    (ascent,) = torch.autograd.grad(sequence_log_probs.sum(), logits, retain_graph=True)
    log_ratio = torch.tensor([-40.0, 0.0, 40.0], dtype=torch.float64)  # forgotten, untouched, likelier than before
    reference = sequence_log_probs.detach() - log_ratio
    (gradient,) = torch.autograd.grad(NPO(0.5)(forget_inputs(policy, reference_log_probs=reference)).sum(), logits)
    weights = gradient.flatten(1).norm(dim=1) / ascent.flatten(1).norm(dim=1)
    torch.testing.assert_close(weights, 2 * torch.sigmoid(0.5 * log_ratio), rtol=1e-9, atol=1e-12)


def test_simnpo_of_one_token_is_npo_against_certainty() -> None:
    predictions = random_predictions()
    alone = forget_inputs(
        AllLogits(predictions.logits[2:], predictions.labels[2:]), reference_log_probs=torch.zeros(1).double()
    )
    torch.testing.assert_close(SimNPO(1.3)(alone), NPO(1.3)(alone))


def test_simnpo_margin_shifts_the_log_probability() -> None:
    """Gamma = beta m is what an answer likelier by a factor exp(m) a token gives."""
    labels = torch.zeros(1, 1, dtype=torch.long)
    values = [
        float(SimNPO(2.0, gamma)(forget_inputs(AllLogits(torch.tensor([[[prob, 1 - prob]]]).double().log(), labels))))
        for prob, gamma in ((0.2, 2 * math.log(3)), (0.6, 0.0))
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_dpo_with_an_unmoved_refusal_is_npo() -> None:
    inputs = forget_inputs()
    assert inputs.refusal is not None
    unmoved = dataclasses.replace(inputs, refusal_reference_log_probs=inputs.refusal.sequence_log_probs())
    torch.testing.assert_close(DPO(0.4)(unmoved), NPO(0.4)(unmoved), rtol=1e-12, atol=0)


def test_dpo_at_the_reference_pushes_the_answer_down_and_the_refusal_up_alike() -> None:
    inputs = forget_inputs()
    assert inputs.refusal is not None
    answer, refusal = (logits_of(one).clone().requires_grad_() for one in (inputs.predictions, inputs.refusal))
    policy, refused = AllLogits(answer, inputs.predictions.labels), AllLogits(refusal, inputs.refusal.labels)
    at_reference = forget_inputs(
        policy,
        refusal=refused,
        reference_log_probs=policy.sequence_log_probs().detach(),
        refusal_reference_log_probs=refused.sequence_log_probs().detach(),
    )
    value = DPO(0.3)(at_reference)
    torch.testing.assert_close(value, torch.full((3,), 2 / 0.3 * math.log(2)).double())
    gradients = torch.autograd.grad(value.sum(), [answer, refusal], retain_graph=True)
    down = torch.autograd.grad(policy.sequence_log_probs().sum(), answer)[0]
    up = torch.autograd.grad(-refused.sequence_log_probs().sum(), refusal)[0]
    torch.testing.assert_close(gradients[0], down)
    torch.testing.assert_close(gradients[1], up)


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_beta_out_of_range_is_refused(beta: float) -> None:
    for term in (NPO, SimNPO, DPO):
        with pytest.raises(InputError, match=f"{term.name}: beta must be a positive number"):
            term(beta)


def test_undefined_margin_is_refused() -> None:
    with pytest.raises(InputError, match="simnpo: gamma must be a finite number"):
        SimNPO(gamma=math.nan)
