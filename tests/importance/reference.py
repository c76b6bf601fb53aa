"""Per-example gradients by the slowest road: one example, one backward pass, autograd's full weight gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.tiny import Architecture, build_tiny_model
from unlora.importance.spaces import virtual_factors
from unlora.models.target_modules import find_target_modules

# (length, prompt length): no prompt, a single completion token, and lengths that force padding.
SHAPES = ((9, 4), (5, 0), (12, 11), (14, 7), (4, 2), (9, 8), (11, 3))

Tokens = tuple[list[int], int]


def examples(shapes: Sequence[tuple[int, int]] = SHAPES, *, seed: int = 1) -> list[Tokens]:
    """Random token ids with the length of their prompt."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randint(2, 128, (size,), generator=generator).tolist(), prompt) for size, prompt in shapes]


def batch_of(chosen: Sequence[Tokens], *, padding: int = 0, pad_token_id: int = 3) -> dict[str, Tensor]:
    """Right-padded dict batch, with `padding` columns more than needed."""
    length = max(len(tokens) for tokens, _ in chosen) + padding
    input_ids = torch.full((len(chosen), length), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, -100)
    for row, (tokens, prompt_length) in enumerate(chosen):
        input_ids[row, : len(tokens)] = torch.tensor(tokens)
        attention_mask[row, : len(tokens)] = 1
        labels[row, prompt_length : len(tokens)] = torch.tensor(tokens[prompt_length:])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def batches_of(chosen: Sequence[Tokens], batch_size: int) -> list[dict[str, Tensor]]:
    """Consecutive batches."""
    return [batch_of(chosen[start : start + batch_size]) for start in range(0, len(chosen), batch_size)]


def completion_nll(model: PreTrainedModel, tokens: list[int], prompt_length: int, reduction: str = "mean") -> Tensor:
    """Mean or sum of the completion's negative log-likelihood, token by token; nothing predicts the first token."""
    logits = model(input_ids=torch.tensor([tokens])).logits[0]
    losses = []
    for position in range(max(prompt_length, 1), len(tokens)):
        before = logits[position - 1]
        losses.append(torch.logsumexp(before, dim=0) - before[tokens[position]])
    return torch.stack(losses).mean() if reduction == "mean" else torch.stack(losses).sum()


def gradients(arch: Architecture, chosen: Sequence[Tokens], reduction: str = "mean") -> dict[str, Tensor]:
    """Canonical module name -> (example, d_out, d_in) in float64."""
    model = build_tiny_model(arch).double()
    targets = find_target_modules(model)
    weights = [target.module.get_parameter("weight") for target in targets.values()]
    found: dict[str, list[Tensor]] = {name: [] for name in targets}
    for tokens, prompt_length in chosen:
        per_weight = torch.autograd.grad(completion_nll(model, tokens, prompt_length, reduction), weights)
        for name, gradient in zip(targets, per_weight, strict=True):
            found[name].append(gradient.T if targets[name].transposed else gradient)
    return {name: torch.stack(each) for name, each in found.items()}


def statistic_of(samples: Tensor, statistic: str) -> Tensor:
    """Over the first axis; the variance is the unbiased one."""
    return samples.square().mean(dim=0) if statistic == "second_moment" else samples.var(dim=0, correction=1)


def expected(name: str, samples: Tensor, statistic: str, space: str, *, rank: int, probe_std: float, seed: int):
    """Field -> tensor, as `vars` of the record of `space` should hold it."""
    if space == "full_weights":
        return {"values": statistic_of(samples, statistic)}
    if space == "marginals":
        full = statistic_of(samples, statistic)
        return {"rows": full.sum(dim=1), "columns": full.sum(dim=0)}
    lora_a, lora_b = virtual_factors(name, *samples.shape[1:], rank=rank, probe_std=probe_std, seed=seed)
    return {
        "lora_b": statistic_of(samples @ lora_a.double().T, statistic),
        "lora_a": statistic_of(lora_b.double().T @ samples, statistic),
    }


def assert_near(found: Tensor, wanted: Tensor, relative: float = 1e-4) -> None:
    """Equal up to `relative` of the largest entry: float32 sums of terms of that size."""
    torch.testing.assert_close(found.double(), wanted.double(), rtol=0, atol=relative * float(wanted.abs().max()))
