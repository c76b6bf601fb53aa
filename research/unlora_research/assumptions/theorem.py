"""Both sides of the theorem in one layer: the exact variance, and what products of the factors' statistics make of it.

Of sum_k B_ik A_kj, with B and A independent, the variance is a product of second moments less one of squared means. The
theorem keeps variances alone.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.importance.spaces import FullWeightStatistics, LoraFactorStatistics
from unlora.shapes import Weight
from unlora_research.assumptions.factors import Factors

FORMS: dict[str, str] = {
    "variances": "Var[B] Var[A] (means neglected)",
    "with_means": "the whole variance of a product",
    "second_moments": "E[B^2] E[A^2] (nothing subtracted)",
}


class Gradients(NamedTuple):
    """One layer's inputs and output gradients for every example of one set."""

    inputs: Float[Tensor, "example token d_in"]
    outputs: Float[Tensor, "example token d_out"]


class Parts(NamedTuple):
    """Variance and squared mean over examples of one tensor: the full weight, or one factor."""

    variance: Tensor
    squared_mean: Tensor

    @classmethod
    def of_moments(cls, variance: Tensor, second_moment: Tensor, count: int) -> "Parts":
        """From the unbiased variance and the second moment of `count` examples."""
        return cls(variance, (second_moment - variance * (count - 1) / count).clamp(min=0))

    def each(self, change: Callable[[Tensor], Tensor]) -> "Parts":
        """Both, changed in the same way."""
        return Parts(change(self.variance), change(self.squared_mean))


class Truth(NamedTuple):
    """What the theorem approximates in one layer, and where the products end at infinite rank."""

    weight: Parts
    limits: Mapping[str, Weight]
    squared_mean_share: float


class FactorParts(NamedTuple):
    """Of both factors, every column that was drawn; the first r are factors of rank r."""

    lora_b: Parts
    lora_a: Parts

    def estimate(self, form: str, rank: int) -> Weight:
        """The estimate of Var[dW] from the first `rank` columns."""
        return product(form, self.lora_b.each(lambda one: one[:, :rank]), self.lora_a.each(lambda one: one[:rank]))


def truth_of(gradients: Gradients) -> Truth:
    """Exact element-wise variance of the weight's gradient, and the products that its marginals make."""
    statistics = FullWeightStatistics()
    statistics.update(*gradients)
    variance, second_moment = (statistics.read(name)["values"] for name in ("variance", "second_moment"))
    weight = Parts.of_moments(variance, second_moment, len(gradients.inputs))
    rows = weight.each(lambda one: one.sum(dim=1, keepdim=True))
    columns = weight.each(lambda one: one.sum(dim=0, keepdim=True))
    limits = {form: product(form, rows, columns) for form in FORMS}
    return Truth(weight, limits, float(statistics.evidence().squared_mean_share))


def factor_parts(gradients: Gradients, factors: Factors) -> FactorParts:
    """Statistics of dB = G A^T and dA = B^T G over the examples."""
    statistics = LoraFactorStatistics(*factors)
    statistics.update(*gradients)
    variance, second_moment = statistics.read("variance"), statistics.read("second_moment")
    count = len(gradients.inputs)
    return FactorParts(*(Parts.of_moments(variance[name], second_moment[name], count) for name in ("lora_b", "lora_a")))


def product(form: str, left: Parts, right: Parts) -> Weight:
    """Variance of sum_k B_ik A_kj of independent factors, with or without the terms that hold their means."""
    if form == "variances":
        return left.variance @ right.variance
    whole = (left.variance + left.squared_mean) @ (right.variance + right.squared_mean)
    return whole if form == "second_moments" else whole - left.squared_mean @ right.squared_mean


def best_product(truth: Weight) -> Weight:
    """The matrix of rank one closest to the truth: no product of row and column weights comes closer."""
    left, values, right = torch.linalg.svd(truth, full_matrices=False)
    return values[0] * torch.outer(left[:, 0], right[0]).abs()
