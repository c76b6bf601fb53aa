"""What a set says about its own estimate: whether halves of it agree, and how far its mean gradient is from zero."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unlora import processes
from unlora.config import Config


@dataclass(frozen=True)
class SetEvidence:
    """Of one set and module, while both sets are measured; float32 on the CPU."""

    halves: Float[Tensor, "half d_out"]
    """Row sums of the second moment over the samples 0, 2, 4, ... and over 1, 3, 5, ..., whatever the statistic; NaN in
    a half without a sample. In the space lora_factors they are the rows of the factor B."""
    squared_mean_share: Float[Tensor, ""]
    """Unbiased estimate of the share of E[g]^2 in E[g^2], both summed over the module. It scatters around zero where
    the mean is zero, so it may fall below; NaN where no two samples were compared."""


class ModuleEvidence(Config):
    """What is kept of both sets' evidence beside a module's importance; None where it is not defined or not known."""

    forget_stability: float | None = None
    """Spearman correlation of the forget set's rows between its even and its odd samples: 1 = stable, 0 = chance. Each
    half has half the samples, so the whole set's estimate is more stable than this."""
    retain_stability: float | None = None
    """The same of the retain set."""
    ratio_stability: float | None = None
    """The same of the ratio of the rows, even forget and retain samples against odd ones: it decides the weights."""
    forget_squared_mean: float | None = None
    """Share of E[g]^2 in E[g^2] over the forget set: what the variance leaves out and the second moment does not. An
    unbiased estimate, so it may fall below 0 by chance."""
    retain_squared_mean: float | None = None
    """The same of the retain set."""


class HalfSums:
    """Row energies of every other sample, whatever the batches."""

    def __init__(self) -> None:
        """Start with no sample."""
        self.counts = [0, 0]
        self.rows: Float[Tensor, "half d_out"] | None = None

    def update(self, row_energies: Float[Tensor, "sample d_out"]) -> None:
        """Take in the next samples, in order."""
        if self.rows is None:
            self.rows = row_energies.new_zeros(2, row_energies.shape[1])
        taken = sum(self.counts)
        for half in (0, 1):
            part = row_energies[(half + taken) % 2 :: 2]
            self.rows[half] += part.sum(dim=0)
            self.counts[half] += part.shape[0]

    def skip(self, sample_count: int) -> None:
        """Count samples that another process takes in."""
        taken = sum(self.counts)
        for half in (0, 1):
            self.counts[half] += len(range((half + taken) % 2, sample_count, 2))

    def combine(self) -> None:
        """Add the energies of all processes; the counts are of all samples already."""
        self.rows = processes.total(self.rows)

    def total(self) -> Float[Tensor, " d_out"]:
        """Row energies of all samples, summed."""
        if self.rows is None:
            raise ValueError("no sample was taken in")
        return self.rows.sum(dim=0)

    def read(self) -> Float[Tensor, "half d_out"]:
        """Mean row energies of either half."""
        if self.rows is None:
            raise ValueError("no sample was taken in")
        return self.rows / self.rows.new_tensor(self.counts)[:, None]  # 0 / 0 is NaN: no sample, no statistic.


class PairSums:
    """Inner products of the gradients of every two samples that were compared: their mean is ||E g||^2, unbiased."""

    def __init__(self) -> None:
        """Start with no pair."""
        self._sum: Tensor | float = 0.0
        self._count = 0

    def add(self, pair_sum: Float[Tensor, ""], pair_count: int) -> None:
        """Take in the sum over `pair_count` ordered pairs."""
        self._sum = self._sum + pair_sum
        self._count += pair_count

    def combine(self) -> None:
        """Add the pairs of all processes."""
        known = self._sum if isinstance(self._sum, Tensor) else None
        summed = processes.total(known)
        self._sum = 0.0 if summed is None else summed
        self._count = sum(processes.from_all(self._count))

    def share_of(self, mean_energy: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Share of the squared mean in E||g||^2; NaN without a pair or without energy."""
        energy = float(mean_energy)
        known = self._count > 0 and energy > 0
        return torch.tensor(float(self._sum) / self._count / energy if known else math.nan)


def evidence(halves: HalfSums, pairs: PairSums) -> SetEvidence:
    """Put both together; the mean energy of a sample is that of the halves."""
    mean_energy = halves.total().sum() / sum(halves.counts)
    return SetEvidence(halves.read().to("cpu", torch.float32), pairs.share_of(mean_energy))
