"""Count, mean and centred sum of squares of per-example gradients, as they stream past.

Second moment and variance are two readings of one accumulator, so an ablation between them costs no second pass.
Chan's update avoids the cancellation of E[g^2] - E[g]^2.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

StatisticName = Literal["second_moment", "variance"]


class Moments:
    """Streaming mean and sum of squared deviations of float32 tensors of one shape."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None
        self._deviations: Tensor | None = None

    def update(self, samples: Float[Tensor, "batch ..."]) -> None:
        """Take in a batch of samples (Chan, Golub and LeVeque 1979)."""
        samples = samples.float()
        new_count = samples.shape[0]
        if new_count == 0:
            return
        new_mean = samples.mean(dim=0)
        new_deviations = (samples - new_mean).square_().sum(dim=0)
        if self._mean is None or self._deviations is None:
            self.count, self._mean, self._deviations = new_count, new_mean, new_deviations
            return
        total = self.count + new_count
        shift = new_mean - self._mean
        self._mean += shift * (new_count / total)
        self._deviations += new_deviations + shift.square() * (self.count * new_count / total)
        self.count = total

    def read(self, statistic: StatisticName) -> Float[Tensor, "..."]:
        """E[g^2] of at least one sample, or the unbiased variance (n - 1) of at least two."""
        if self._mean is None or self._deviations is None:
            raise ValueError("no sample was taken in")
        if statistic == "second_moment":
            return self._deviations / self.count + self._mean.square()
        if self.count < 2:
            raise ValueError("a variance needs two samples")
        return self._deviations / (self.count - 1)


def unbiased_variance(second_moment: Float[Tensor, " n"], squared_mean: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Second moment minus an unbiased estimate of the squared mean, which may exceed it by chance: not below zero."""
    return torch.clamp(second_moment - squared_mean, min=0)
