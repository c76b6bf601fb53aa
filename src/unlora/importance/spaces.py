"""What the statistic is taken of: full weights, virtual LoRA factors, or the marginals of the full weights.

In every space the input is a layer's X (sample, token, d_in) and D (sample, token, d_out) from one backward pass;
sample b has the gradient G_b = D_b^T X_b of shape (d_out, d_in). A sample is an example; where a whole batch is one, it
comes with the tokens of all its examples (`unlora.importance.accumulate`).
"""

import hashlib
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unlora import processes
from unlora.errors import InputError
from unlora.importance.evidence import HalfSums, PairSums, SetEvidence, evidence
from unlora.importance.moments import Moments, StatisticName, unbiased_variance
from unlora.shapes import LoraA, LoraB

SpaceName = Literal["full_weights", "lora_factors", "marginals"]

Inputs = Float[Tensor, "batch token d_in"]
OutputGradients = Float[Tensor, "batch token d_out"]

MEAN_EVERY = 4
"""The squared mean of `marginals` is estimated on every fourth batch: over random batches the estimate stays unbiased,
and the one product it needs, as large as a weight gradient, costs an eighth of a forward and backward pass at most.
Batches of one sample are all paired, two by two: there are few pairs among them."""


class ModuleStatistics(ABC):
    """Accumulates one module's sampled gradients of one set."""

    def __init__(self) -> None:
        """Start with no sample."""
        self._halves = HalfSums()
        self._pairs = PairSums()

    @abstractmethod
    def update(self, inputs: Inputs, output_gradients: OutputGradients) -> None:
        """Take in one batch."""

    def skip(self, sample_count: int) -> None:
        """Pass over a batch that another process takes in."""
        self._halves.skip(sample_count)

    def combine(self) -> None:
        """Add what the other processes have taken in; once, after the last batch."""
        self._halves.combine()
        self._pairs.combine()

    @abstractmethod
    def read(self, statistic: StatisticName) -> dict[str, Tensor]:
        """Named tensors of the statistic, normalised by the number of samples exactly once."""

    def evidence(self) -> SetEvidence:
        """What the same samples say about the estimate."""
        return evidence(self._halves, self._pairs)


class FullWeightStatistics(ModuleStatistics):
    """E[g^2] or Var[g] of every weight: FILA's space (arXiv 2408.06621). One outer product at a time is held."""

    def __init__(self, total: Moments | None = None) -> None:
        """Start with no sample; `total` says where the sums lie and whether they are centred."""
        super().__init__()
        self._total = total if total is not None else Moments()

    def update(self, inputs: Inputs, output_gradients: OutputGradients) -> None:
        batch, energies = Moments(), []
        for example_inputs, example_gradients in zip(inputs.float(), output_gradients.float(), strict=True):
            gradient = example_gradients.T @ example_inputs
            energies.append(gradient.square().sum(dim=1))
            batch.add(gradient)
        self._halves.update(torch.stack(energies))
        self._pairs.add(*_pairs_of(batch))
        self._total.merge(batch)

    def combine(self) -> None:
        super().combine()
        self._total.combine()

    def read(self, statistic: StatisticName) -> dict[str, Tensor]:
        return {"values": self._total.read(statistic)}


def _pairs_of(moments: Moments) -> tuple[Tensor, int]:
    """Sum of the inner products of every two samples, ||sum g||^2 - sum ||g||^2, and how many there are."""
    if moments.mean is None or moments.deviations is None:
        raise ValueError("only centred moments of a sample or more know their pairs")
    count = moments.count * (moments.count - 1)
    return count * moments.mean.square().sum() - moments.deviations.sum(), count


class LoraFactorStatistics(ModuleStatistics):
    """Statistics of the gradients of LoRA factors that exist only here: VILA's space (arXiv 2508.21300, section 4).

    dB = G A^T and dA = B^T G for random A, B. The published code inserts both factors into the model and so measures
    another network; here the forward pass is the target model's own.
    """

    def __init__(self, lora_a: LoraA, lora_b: LoraB) -> None:
        """Start with no sample of the gradients of these factors."""
        super().__init__()
        self._lora_a = lora_a
        self._lora_b = lora_b
        self._moments_a = Moments()
        self._moments_b = Moments()

    def update(self, inputs: Inputs, output_gradients: OutputGradients) -> None:
        inputs, output_gradients = inputs.float(), output_gradients.float()
        gradients_b = output_gradients.mT @ (inputs @ self._lora_a.T)
        self._halves.update(gradients_b.square().sum(dim=2))
        self._moments_b.update(gradients_b)
        self._moments_a.update((output_gradients @ self._lora_b).mT @ inputs)

    def combine(self) -> None:
        super().combine()
        self._moments_a.combine()
        self._moments_b.combine()

    def read(self, statistic: StatisticName) -> dict[str, Tensor]:
        return {"lora_b": self._moments_b.read(statistic), "lora_a": self._moments_a.read(statistic)}

    def evidence(self) -> SetEvidence:
        pairs = PairSums()
        pairs.add(*_pairs_of(self._moments_b))
        return evidence(self._halves, pairs)


Energies = tuple[Float[Tensor, " d_out"], Float[Tensor, " d_in"]]


class _Group(NamedTuple):
    """Samples whose pairs estimate a squared mean; which position belongs to which sample no longer matters."""

    sample_count: int
    energies: Energies
    inputs: Float[Tensor, "position d_in"]
    output_gradients: Float[Tensor, "position d_out"]


def _without_padding(inputs: Inputs, output_gradients: OutputGradients) -> tuple[Tensor, Tensor]:
    """All positions one after another, but those whose input or gradient is zero throughout: they add nothing.

    Half of the positions of an expert are padding, as other examples had more tokens routed there.
    """
    kept = output_gradients.any(dim=2) & inputs.any(dim=2)
    return inputs[kept], output_gradients[kept]


def _join(first: _Group | None, second: _Group) -> _Group:
    if first is None:
        return second
    return _Group(
        first.sample_count + second.sample_count,
        _add(first.energies, second.energies),
        torch.cat([first.inputs, second.inputs]),
        torch.cat([first.output_gradients, second.output_gradients]),
    )


def _add(total: Energies | None, part: Energies) -> Energies:
    return part if total is None else (total[0] + part[0], total[1] + part[1])


class MarginalStatistics(ModuleStatistics):
    """Row and column sums of the full-weight statistic, without ever forming it over the whole set.

    Row j of example b has energy sum_k G_b[j, k]^2. With few tokens it comes from the Gram matrix of the inputs,
    d_j^T (X X^T) d_j, and likewise for columns; with many, the outer product is cheaper (`gram_is_cheaper`).

    The variance needs the squared mean ||E G_j||^2. For a batch of n samples with sum S,
    (||S_j||^2 - sum of the samples' energies) / (n (n - 1)) is unbiased for it; numerators and denominators are
    pooled over every `MEAN_EVERY`-th batch. A set of one batch gives the sample variance itself. A batch of one
    sample has no pairs: it waits for the next batch.
    """

    def __init__(self) -> None:
        """Start with no sample."""
        super().__init__()
        self._columns: Float[Tensor, " d_in"] | None = None
        self._group_count = 0
        self._pair_count = 0
        self._cross: Energies | None = None
        self._waiting: _Group | None = None
        self._waiting_elsewhere = False

    def update(self, inputs: Inputs, output_gradients: OutputGradients) -> None:
        rows, columns = example_energies(inputs.float(), output_gradients.float())
        self._halves.update(rows)
        energies = rows.sum(dim=0), columns
        self._columns = columns if self._columns is None else self._columns + columns
        alone = inputs.shape[0] == 1
        if alone or self._waiting is not None or self._group_count % MEAN_EVERY == 0:
            group = _Group(inputs.shape[0], energies, *_without_padding(inputs, output_gradients))
            group, self._waiting = _join(self._waiting, group), None
            if group.sample_count == 1:
                self._waiting = group
                return
            self._add_pairs(group)
        self._group_count += 1

    def skip(self, sample_count: int) -> None:
        super().skip(sample_count)
        self._waiting_elsewhere = sample_count == 1 and not self._waiting_elsewhere
        self._group_count += not self._waiting_elsewhere

    def combine(self) -> None:
        super().combine()
        self._columns = processes.total(self._columns)
        rows, columns = self._cross if self._cross is not None else (None, None)
        rows, columns = processes.total(rows), processes.total(columns)
        self._cross = None if rows is None or columns is None else (rows, columns)
        self._pair_count = sum(processes.from_all(self._pair_count))

    def _add_pairs(self, group: _Group) -> None:
        """Add the inner products of every two samples' gradients, row by row and column by column."""
        whole_rows, whole_columns = example_energies(group.inputs[None].float(), group.output_gradients[None].float())
        rows, columns = group.energies
        cross = whole_rows[0] - rows, whole_columns - columns
        self._cross = _add(self._cross, cross)
        self._pair_count += group.sample_count * (group.sample_count - 1)
        self._pairs.add(cross[0].sum(), group.sample_count * (group.sample_count - 1))

    def read(self, statistic: StatisticName) -> dict[str, Tensor]:
        if self._columns is None:
            raise ValueError("no sample was taken in")
        sample_count = sum(self._halves.counts)
        rows, columns = self._halves.total() / sample_count, self._columns / sample_count
        if statistic == "variance":
            if self._cross is None:
                raise ValueError("a variance needs two samples")
            rows = unbiased_variance(rows, self._cross[0] / self._pair_count)
            columns = unbiased_variance(columns, self._cross[1] / self._pair_count)
        return {"rows": rows, "columns": columns}


def gram_is_cheaper(token_count: int, d_out: int, d_in: int) -> bool:
    """Compare multiplications: 2 T^2 (d_in + d_out) for both Gram matrices and their use, T d_in d_out for G."""
    return 2 * token_count * (d_in + d_out) < d_in * d_out


def example_energies(
    inputs: Inputs, output_gradients: OutputGradients
) -> tuple[Float[Tensor, "batch d_out"], Float[Tensor, " d_in"]]:
    """Row energies of every G_b = D_b^T X_b, and column energies summed over the batch."""
    token_count, d_in, d_out = inputs.shape[1], inputs.shape[2], output_gradients.shape[2]
    if gram_is_cheaper(token_count, d_out, d_in):
        rows = ((inputs @ inputs.mT) @ output_gradients).mul_(output_gradients).sum(dim=1)
        columns = ((output_gradients @ output_gradients.mT) @ inputs).mul_(inputs).sum(dim=(0, 1))
        return rows.clamp_(min=0), columns.clamp_(min=0)  # Rounding can leave a vanishing energy below zero.
    rows, columns = inputs.new_empty(inputs.shape[0], d_out), inputs.new_zeros(d_in)
    for row, example_inputs, example_gradients in zip(rows, inputs, output_gradients, strict=True):
        squares = (example_gradients.T @ example_inputs).square_()
        row.copy_(squares.sum(dim=1))
        columns += squares.sum(dim=0)
    return rows, columns


def virtual_factors(name: str, d_out: int, d_in: int, *, rank: int, probe_std: float, seed: int) -> tuple[LoraA, LoraB]:
    """Random LoRA factors A (rank, d_in), B (d_out, rank), all entries N(0, probe_std^2), for one module.

    They depend on the module's name, so a module keeps its factors whatever other modules are measured.

    Raises:
        InputError: no column, or no spread.
    """
    if rank < 1 or probe_std <= 0:
        raise InputError(f"virtual factors: rank {rank} and probe_std {probe_std} must both be positive.")
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    lora_a = torch.randn(rank, d_in, generator=generator) * probe_std
    lora_b = torch.randn(d_out, rank, generator=generator) * probe_std
    return lora_a, lora_b
