"""Count, mean and centred sum of squares of sampled gradients, as they stream past.

Second moment and variance are two readings of one accumulator, so an ablation between them costs no second pass.
Chan's update avoids the cancellation of E[g^2] - E[g]^2.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unlora import processes

StatisticName = Literal["second_moment", "variance"]
GradientUnit = Literal["example", "batch"]
"""What one sample is: the gradient of one example's loss, or of the mean loss of a batch's scored examples."""
Reduction = Literal["mean", "sum"]
"""How an example's loss comes from its completion tokens."""


class Moments:
    """Streaming mean and sum of squared deviations of float32 tensors of one shape.

    Where only the second moment will be read, `centred=False` keeps squares alone, half the memory.
    """

    def __init__(self, *, centred: bool = True, device: torch.device | None = None) -> None:
        """Start with no sample; the sums lie on `device`, or by default where the first samples are."""
        self.count = 0
        self.mean: Tensor | None = None
        """None also where `centred` is off: deviations are then from zero."""
        self.deviations: Tensor | None = None
        self.centred = centred
        self._device = device

    def update(self, samples: Float[Tensor, "batch ..."]) -> None:
        """Take in a batch of samples."""
        if samples.shape[0] > 0:
            samples, batch = samples.float(), Moments()
            batch.count, batch.mean = samples.shape[0], samples.mean(dim=0)
            batch.deviations = (samples - batch.mean).square_().sum(dim=0)
            self.merge(batch)

    def add(self, sample: Float[Tensor, "..."]) -> None:
        """Take in one sample, which is overwritten (Welford 1962)."""
        deviations = self._started(sample)
        self.count += 1
        if self.mean is None:
            deviations.addcmul_(sample, sample)
            return
        sample -= self.mean
        self.mean.add_(sample, alpha=1 / self.count)
        deviations.addcmul_(sample, sample, value=(self.count - 1) / self.count)

    def merge(self, other: "Moments") -> None:
        """Take in all samples of a centred accumulator at once (Chan, Golub and LeVeque 1979)."""
        if other.mean is None or other.deviations is None:
            raise ValueError("only a centred accumulator that has samples can be merged")
        deviations = self._started(other.deviations)
        total = self.count + other.count
        deviations += other.deviations.to(deviations)
        shift = other.mean.to(deviations)
        if self.mean is None:
            deviations.addcmul_(shift, shift, value=other.count)
        else:
            shift = shift - self.mean
            deviations.addcmul_(shift, shift, value=self.count * other.count / total)
            self.mean.add_(shift, alpha=other.count / total)
        self.count = total

    def combine(self) -> None:
        """Take in the samples of all other processes (Chan, Golub and LeVeque 1979, all groups at once)."""
        own, self.count = self.count, sum(processes.from_all(self.count))
        if self.count == 0:
            return
        if self.centred:
            own_mean = self.mean
            self.mean = processes.total(None if own_mean is None else own_mean * (own / self.count))
            if self.deviations is not None and own_mean is not None and self.mean is not None:
                self.deviations.add_((own_mean - self.mean).square_(), alpha=own)
        self.deviations = processes.total(self.deviations)
        if self._device is not None:  # where there was no sample, the sums are wherever they were summed
            self.mean = self.mean.to(self._device) if self.mean is not None else None
            self.deviations = self.deviations.to(self._device) if self.deviations is not None else None

    def _started(self, like: Tensor) -> Tensor:
        if self.deviations is None:
            self.deviations = torch.zeros_like(like, device=self._device)
            self.mean = torch.zeros_like(like, device=self._device) if self.centred else None
        return self.deviations

    def read(self, statistic: StatisticName) -> Float[Tensor, "..."]:
        """E[g^2] of at least one sample, or the unbiased variance (n - 1) of at least two."""
        if self.deviations is None or self.count == 0:
            raise ValueError("no sample was taken in")
        if statistic == "second_moment":
            second_moment = self.deviations / self.count
            return second_moment if self.mean is None else second_moment.addcmul_(self.mean, self.mean)
        if not self.centred:
            raise ValueError("deviations from zero give no variance")
        if self.count < 2:
            raise ValueError("a variance needs two samples")
        return self.deviations / (self.count - 1)


def unbiased_variance(second_moment: Float[Tensor, " n"], squared_mean: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Second moment minus an unbiased estimate of the squared mean, which may exceed it by chance: not below zero."""
    return torch.clamp(second_moment - squared_mean, min=0)
