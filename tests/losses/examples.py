"""Small batches and the naive formulas they are checked against."""

import torch
from torch import Tensor

from unlora.losses import NOT_SCORED, Predictions


def random_predictions(*, seed: int = 0, dtype: torch.dtype = torch.float64) -> Predictions:
    """Three examples over five positions and seven tokens: a prompt before the completion, padding after it."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 7, (3, 5), generator=generator)
    labels[0, :2] = NOT_SCORED
    labels[1, 3:] = NOT_SCORED
    labels[2, [0, 1, 3, 4]] = NOT_SCORED  # one scored token
    return Predictions(logits.to(dtype), labels)


def scored_tokens(predictions: Predictions) -> list[list[tuple[Tensor, int]]]:
    """For each example its scored tokens as (probabilities over the vocabulary, token), one at a time."""
    return [
        [
            (logits.exp() / logits.exp().sum(), label)
            for logits, label in zip(predictions.logits[row].double(), predictions.labels[row].tolist(), strict=True)
            if label != NOT_SCORED
        ]
        for row in range(len(predictions.labels))
    ]
