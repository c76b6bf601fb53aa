"""Agreement of gradients: against autograd, through the random projection, and its interval."""

import itertools

import numpy as np
import pytest
import torch

from unlora.audit.agreement import gradient_cosines, mean_agreement
from unlora.audit.subject import AuditSubject
from unlora.data.collate import collate
from unlora.losses import Predictions
from unlora.models.forward import completion_logits
from unlora.models.target_modules import find_target_modules
from unlora.models.wrapping import unwrap


def by_autograd(subject: AuditSubject) -> np.ndarray:
    """The cosines from every example's whole gradient, one backward pass each."""
    model = unwrap(subject.model)
    weights = [target.leaf_weight() for target in find_target_modules(subject.model).values()]
    gradients = []
    for one in subject.tokeniser.encode_set(subject.forget):
        for weight in weights:
            weight.requires_grad_(True)
        batch = collate([one], 1)
        loss = -Predictions.from_model_output(completion_logits(model, batch), batch["labels"]).mean_log_probs().sum()
        gradients.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)]))
        for weight in weights:
            weight.requires_grad_(False)
    unit = torch.nn.functional.normalize(torch.stack(gradients), dim=1)
    return (unit @ unit.T).numpy()


def test_cosines_are_those_of_autograd_and_the_projection_comes_near(subject: AuditSubject) -> None:
    expected = by_autograd(subject)
    tokens = subject.tokeniser.encode_set(subject.forget)
    before = [parameter.requires_grad for parameter in subject.model.parameters()]  # of what other tests left
    exact = gradient_cosines(subject.model, tokens, pad_token_id=1, batch_size=3, columns=10_000)
    assert exact == pytest.approx(expected, abs=1e-4)
    assert [parameter.requires_grad for parameter in subject.model.parameters()] == before
    projected = gradient_cosines(subject.model, tokens, pad_token_id=1, columns=24)
    assert projected != pytest.approx(exact, abs=1e-4)
    assert projected == pytest.approx(exact, abs=0.1)


def test_mean_is_over_pairs_of_two_and_its_interval_is_of_whole_examples() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(12, 3)) + 1.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    found = mean_agreement(cosines)
    assert found.value == pytest.approx(np.mean([cosines[i, j] for i, j in itertools.combinations(range(12), 2)]))
    assert found.interval.low < found.value < found.interval.high
    cosines[3, :] = cosines[:, 3] = np.nan  # an example without a gradient
    without = mean_agreement(cosines, np.eye(12))
    left = [place for place in range(12) if place != 3]
    assert without.value == pytest.approx(np.mean([cosines[i, j] for i, j in itertools.combinations(left, 2)]))
    assert (without.example_count, without.unscored_count) == (11, 1)
