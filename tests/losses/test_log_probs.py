import math

import pytest
import torch

from tests.losses.examples import AllLogits, random_predictions, scored_tokens
from unlora.errors import InputError
from unlora.losses import NOT_SCORED, Predictions


def test_log_probs_equal_naive_formula() -> None:
    predictions = random_predictions()
    naive = [torch.stack([probs[token].log() for probs, token in example]) for example in scored_tokens(predictions)]
    torch.testing.assert_close(predictions.sequence_log_probs(), torch.stack([example.sum() for example in naive]))
    torch.testing.assert_close(predictions.mean_log_probs(), torch.stack([example.mean() for example in naive]))
    assert predictions.token_counts.tolist() == [3, 3, 1]


def test_token_log_probs_stay_in_place_and_are_zero_where_masked() -> None:
    predictions = random_predictions()
    token_log_probs = predictions.token_log_probs()
    assert (token_log_probs[~predictions.mask] == 0).all()
    everywhere = predictions.logits.log_softmax(-1).gather(-1, predictions.labels.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(token_log_probs[predictions.mask], everywhere[predictions.mask])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_log_probs_of_low_precision_logits_are_float32(dtype: torch.dtype) -> None:
    predictions = random_predictions(dtype=dtype)
    exact = AllLogits(predictions.logits.double(), predictions.labels)
    assert predictions.token_log_probs().dtype == torch.float32
    torch.testing.assert_close(predictions.token_log_probs().double(), exact.token_log_probs(), rtol=1e-6, atol=1e-6)


def test_memorised_token_keeps_its_small_negative_log_likelihood_under_large_logits() -> None:
    predictions = AllLogits(torch.tensor([[[107.0, 100.0]]]), torch.zeros(1, 1, dtype=torch.long))
    assert float(predictions.mean_log_probs()) == pytest.approx(-math.log1p(math.exp(-7.0)), rel=2e-4)


def test_from_model_output_shifts_by_one() -> None:
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[NOT_SCORED, 1, 2, 3], [NOT_SCORED, NOT_SCORED, 4, NOT_SCORED]])
    predictions = Predictions.from_model_output(logits, labels)
    log_probs = logits.log_softmax(-1)
    expected = torch.stack([log_probs[0, 0, 1] + log_probs[0, 1, 2] + log_probs[0, 2, 3], log_probs[1, 1, 4]])
    torch.testing.assert_close(predictions.sequence_log_probs(), expected)


def test_from_model_output_takes_the_last_logits_only() -> None:
    logits = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[NOT_SCORED] * 4 + [1, 2], [NOT_SCORED] * 3 + [3, 4, NOT_SCORED]])
    full = Predictions.from_model_output(logits, labels)
    kept = Predictions.from_model_output(logits[:, 2:], labels)
    assert torch.equal(full.sequence_log_probs(), kept.sequence_log_probs())


def test_from_model_output_refuses_a_scored_label_without_logits() -> None:
    labels = torch.tensor([[NOT_SCORED] * 3 + [1, 2, 3]])
    assert Predictions.from_model_output(torch.zeros(1, 4, 5), labels).token_counts.item() == 3
    with pytest.raises(InputError, match="keep more logits"):
        Predictions.from_model_output(torch.zeros(1, 3, 5), labels)
    with pytest.raises(InputError, match="whole sequence"):
        Predictions.from_model_output(torch.zeros(1, 7, 5), labels)


def test_example_without_scored_token_is_refused() -> None:
    labels = torch.tensor([[1, 2], [NOT_SCORED, NOT_SCORED]])
    with pytest.raises(InputError, match="Example 1 of the batch has no scored token"):
        AllLogits(torch.zeros(2, 2, 3), labels)


def test_who_asks_first_without_a_gradient_leaves_one_to_who_asks_next() -> None:
    """One softmax a step serves the loss and what is seen of the forget examples, in whichever order they ask."""
    predictions = random_predictions()
    logits = predictions.logits.requires_grad_(True)
    predictions = AllLogits(logits, predictions.labels)
    with torch.no_grad():
        seen = predictions.mean_log_probs()
    asked = predictions.mean_log_probs()
    assert not seen.requires_grad
    assert torch.equal(seen, asked)
    assert predictions.scored_log_softmax() is predictions.scored_log_softmax()
    alone = AllLogits(logits, predictions.labels).mean_log_probs()
    (gradient,), (expected,) = torch.autograd.grad(asked.sum(), logits), torch.autograd.grad(alone.sum(), logits)
    assert torch.equal(gradient, expected)
    assert gradient.abs().sum() > 0
