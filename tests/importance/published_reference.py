"""The released arithmetic by the slowest road: its formulas, one number at a time, in float64."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel

from tests.importance.reference import Tokens
from unlora.data.tokenise import TokenisedExample
from unlora.models.target_modules import TargetModule, find_target_modules

Matrix = list[list[float]]
Rows = Sequence[tuple[list[int], list[int]]]
Probes = dict[str, dict[str, Tensor]]


def tokenised(chosen: Sequence[Tokens]) -> list[TokenisedExample]:
    """The examples as the library takes them."""
    return [TokenisedExample(tuple(tokens), prompt, False, "test") for tokens, prompt in chosen]


def batch_mean_loss(
    model: PreTrainedModel, weights: dict[str, Tensor], batch: Sequence[Tokens], targets: dict[str, TargetModule]
) -> Tensor:
    """Mean over all scored tokens of the batch; one example, one unpadded forward pass, with `weights` written in."""
    stored = {f"{name}.weight": weight.T if targets[name].transposed else weight for name, weight in weights.items()}
    losses = []
    for tokens, prompt_length in batch:
        logits = functional_call(model, stored, kwargs={"input_ids": torch.tensor([tokens])}).logits[0]
        for position in range(max(prompt_length, 1), len(tokens)):
            before = logits[position - 1]
            losses.append(torch.logsumexp(before, dim=0) - before[tokens[position]])
    return torch.stack(losses).mean()


def written_weights(targets: dict[str, TargetModule], probes: Probes, scaling: float) -> dict[str, Tensor]:
    """W, or W + s B A where there is a probe, in float64."""
    found = {}
    for name, target in targets.items():
        stored = target.module.get_parameter("weight").detach().double()
        weight = stored.T if target.transposed else stored
        if name in probes:
            weight = weight + scaling * probes[name]["lora_b"] @ probes[name]["lora_a"]
        found[name] = weight
    return found


class Sums(NamedTuple):
    """S1, S2 of every leaf and N of one set."""

    first: dict[tuple[str, str], Matrix]
    second: dict[tuple[str, str], Matrix]
    label_count: int


def sums(
    model: PreTrainedModel, chosen: Sequence[Tokens], steps: Sequence[list[int]], probes: Probes, scaling: float
) -> Sums:
    """Loop over the steps of all passes and over every entry."""
    targets = find_target_modules(model)
    first: dict[tuple[str, str], Matrix] = {}
    second: dict[tuple[str, str], Matrix] = {}
    label_count = 0
    for rows in steps:
        batch = [chosen[row] for row in rows]
        labels = 0
        for tokens, prompt_length in batch:
            for position in range(len(tokens)):
                if position >= prompt_length:
                    labels += 1
        label_count += labels
        if probes:
            leaves = {(name, field): tensor for name, pair in probes.items() for field, tensor in pair.items()}
            for tensor in leaves.values():
                tensor.requires_grad_(True)
            weights = written_weights(targets, probes, scaling)
        else:
            weights = {name: weight.requires_grad_(True) for name, weight in written_weights(targets, {}, 1).items()}
            leaves = {(name, "values"): weight for name, weight in weights.items()}
        gradients = torch.autograd.grad(batch_mean_loss(model, weights, batch, targets), list(leaves.values()))
        for leaf, tensor in zip(leaves, gradients, strict=True):
            entries = tensor.tolist()
            one = first.setdefault(leaf, [[0.0] * len(row) for row in entries])
            two = second.setdefault(leaf, [[0.0] * len(row) for row in entries])
            for i, row in enumerate(entries):
                for j, gradient in enumerate(row):
                    one[i][j] += labels * gradient
                    two[i][j] += labels * gradient * gradient
    return Sums(first, second, label_count)


def variance(found: Sums, leaf: tuple[str, str]) -> Matrix:
    """V = max(0, S2 / N - (S1 / N)^2)."""
    result = []
    for ones, twos in zip(found.first[leaf], found.second[leaf], strict=True):
        pairs = zip(ones, twos, strict=True)
        result.append([max(0.0, two / found.label_count - (one / found.label_count) ** 2) for one, two in pairs])
    return result


def whole_map(found: Sums, name: str, space: str) -> Matrix:
    """One set's map before the (for VILA second) division by N: V_B V_A, or S2."""
    if space == "full_weights":
        return found.second[name, "values"]
    lora_b, lora_a = variance(found, (name, "lora_b")), variance(found, (name, "lora_a"))
    rank = len(lora_a)
    return [[sum(row[k] * lora_a[k][j] for k in range(rank)) for j in range(len(lora_a[0]))] for row in lora_b]


def row_scales(forget: Sums, retain: Sums, name: str, space: str) -> list[float]:
    """d_i = sqrt(sum_j (forget / N_f) / (1e-5 + retain / N_r))."""
    scales = []
    for forget_row, retain_row in zip(whole_map(forget, name, space), whole_map(retain, name, space), strict=True):
        total = 0.0
        for above, below in zip(forget_row, retain_row, strict=True):
            total += (above / forget.label_count) / (1e-5 + below / retain.label_count)
        scales.append(math.sqrt(total))
    return scales


def factors(weight: Tensor, scales: list[float], *, rank: int, scaling: float, seed: int) -> tuple[Tensor, Tensor]:
    """B and A: randomised decomposition of D W (Halko et al. 2011, algorithms 4.4 and 5.1, two power iterations)."""
    diagonal = torch.diag(torch.tensor(scales, dtype=torch.float64))
    matrix = diagonal @ weight.double()
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(tall @ torch.randn(tall.shape[1], rank, generator=generator, dtype=torch.float64)).Q
    for _ in range(2):
        basis = torch.linalg.qr(tall.T @ basis).Q
        basis = torch.linalg.qr(tall @ basis).Q
    left, values, right = torch.linalg.svd(basis.T @ tall, full_matrices=False)
    left, right = basis @ left, right.T
    if tall is not matrix:
        left, right = right, left
    roots = torch.diag((values / scaling).sqrt())
    undone = torch.diag(torch.tensor([1 / (scale + 1e-5) for scale in scales], dtype=torch.float64))
    return undone @ left @ roots, roots @ right.T
