"""Small batches and the naive formulas they are checked against."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unlora.losses import NOT_SCORED, ForgetInputs, Predictions, RetainInputs


class AllLogits(Predictions):
    """Predictions that still know the logits of every position: what tests change, and what must not be read."""

    logits: Tensor
    """(batch, token, vocab)."""

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        super().__init__(logits[labels != NOT_SCORED], labels)
        object.__setattr__(self, "logits", logits)


def logits_of(predictions: Predictions | None) -> Tensor:
    """Of every position."""
    assert isinstance(predictions, AllLogits)
    return predictions.logits


def random_predictions(*, seed: int = 0, dtype: torch.dtype = torch.float64) -> AllLogits:
    """Three examples over five positions and seven tokens: a prompt before the completion, padding after it."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 7, (3, 5), generator=generator)
    labels[0, :2] = NOT_SCORED
    labels[1, 3:] = NOT_SCORED
    labels[2, [0, 1, 3, 4]] = NOT_SCORED  # one scored token
    return AllLogits(logits.to(dtype), labels)


def scored_tokens(predictions: Predictions) -> list[list[tuple[Tensor, int]]]:
    """For each example its scored tokens as (probabilities over the vocabulary, token), one at a time."""
    logits = iter(predictions.scored_logits.double())
    return [
        [
            ((one := next(logits)).exp() / one.exp().sum(), label)
            for label in predictions.labels[row].tolist()
            if label != NOT_SCORED
        ]
        for row in range(len(predictions.labels))
    ]


REFERENCE_LOG_PROBS = torch.tensor([-6.0, -3.0, -2.5], dtype=torch.float64)


def forget_inputs(predictions: Predictions | None = None, **changed: Any) -> ForgetInputs:
    """Everything a forget term may ask for, around the same three examples; around others, what is given."""
    example = random_predictions()
    predictions = predictions if predictions is not None else example
    if logits_of(predictions).shape != example.logits.shape:
        return ForgetInputs(predictions, **changed)
    count = int(predictions.token_counts.sum())
    fields: dict[str, Any] = {
        "reference_log_probs": REFERENCE_LOG_PROBS,
        "reference": AllLogits(random_predictions(seed=7).logits, predictions.labels),
        "refusal": random_predictions(seed=8),
        "refusal_reference_log_probs": REFERENCE_LOG_PROBS.flip(0),
        "hidden_states": random_states(count, seed=9),
        "reference_hidden_states": random_states(count, seed=10),
    }
    return ForgetInputs(predictions, **(fields | changed))


def retain_inputs(predictions: Predictions | None = None, **changed: Any) -> RetainInputs:
    """Everything a retain term may ask for; around other examples, what is given."""
    every = forget_inputs(predictions)
    if every.hidden_states is None:
        return RetainInputs(every.predictions, **changed)
    fields: dict[str, Any] = {
        "reference": every.reference,
        "hidden_states": every.hidden_states,
        "reference_hidden_states": every.reference_hidden_states,
    }
    return RetainInputs(every.predictions, **(fields | changed))


def random_states(count: int, *, seed: int) -> Tensor:
    """Hidden states of width 6 for `count` scored tokens."""
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def states_of_examples(predictions: Predictions, states: Tensor) -> list[list[Tensor]]:
    """Hidden states by example."""
    rows = iter(states)
    return [[next(rows) for _ in range(count)] for count in predictions.token_counts.tolist()]


def finite_differences(predictions: AllLogits, value: Callable[[AllLogits], float]) -> Tensor:
    """Central differences of a plain function of the logits, one entry at a time."""
    gradient = torch.zeros_like(predictions.logits)
    for place in range(gradient.numel()):
        ends = []
        for step in (1e-6, -1e-6):
            logits = predictions.logits.clone()
            logits.view(-1)[place] += step
            ends.append(value(AllLogits(logits, predictions.labels)))
        gradient.view(-1)[place] = (ends[0] - ends[1]) / 2e-6
    return gradient
