import torch
from torch.nn.functional import cross_entropy

from tests.losses.examples import random_predictions
from unlora.losses import RetainNLL


def test_retain_nll_equals_cross_entropy_of_each_example() -> None:
    predictions = random_predictions()
    expected = [cross_entropy(*example) for example in zip(predictions.logits, predictions.labels, strict=True)]
    torch.testing.assert_close(RetainNLL()(predictions), torch.stack(expected))
