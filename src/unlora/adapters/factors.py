"""Algebra of LoRA adapters as plain tensors: concatenate two, or squeeze one to a lower rank."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from unlora.shapes import LoraA, LoraB


@dataclass(frozen=True)
class Factors:
    """One module's weight update, lora_b @ lora_a, with the scaling multiplied into lora_b."""

    lora_b: LoraB
    lora_a: LoraA


def concatenate(first: Mapping[str, Factors], second: Mapping[str, Factors]) -> dict[str, Factors]:
    """One adapter whose update is the sum of two: B = [B1, B2], A = [A1; A2]; ranks add up.

    A module that only one of them has is padded with zeros, because one adapter has one rank.
    """
    first_rank, second_rank = rank_of(first), rank_of(second)
    joined = {}
    for name in dict.fromkeys([*first, *second]):
        known = first.get(name) or second[name]
        nothing = (known.lora_b.new_zeros(known.lora_b.shape[0], 1), known.lora_a.new_zeros(1, known.lora_a.shape[1]))
        parts = [
            factors.get(name) or Factors(nothing[0].expand(-1, rank), nothing[1].expand(rank, -1))
            for factors, rank in ((first, first_rank), (second, second_rank))
        ]
        joined[name] = Factors(
            torch.cat([part.lora_b for part in parts], dim=1), torch.cat([part.lora_a for part in parts])
        )
    return joined


def squeeze(factors: Mapping[str, Factors], rank: int) -> tuple[dict[str, Factors], float]:
    """Best rank-r approximation of every update, and the relative Frobenius error of all of them together.

    The SVD is taken of the small core R_b R_a^T after QR of both factors, so the full update is never formed. A layer
    narrower than the new rank is padded with zeros, because one adapter has one rank.
    """
    rank = min(rank, rank_of(factors))
    squeezed, error, total = {}, 0.0, 0.0
    for name, module in factors.items():
        q_b, r_b = torch.linalg.qr(module.lora_b.double())
        q_a, r_a = torch.linalg.qr(module.lora_a.double().T)
        u, values, v = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        root = values[:rank].sqrt()
        lora_b, lora_a = (q_b @ u[:, :rank] * root).float(), (root[:, None] * v[:rank] @ q_a.T).float()
        missing = rank - root.numel()
        squeezed[name] = Factors(F.pad(lora_b, (0, missing)), F.pad(lora_a, (0, 0, 0, missing)))
        error += float(values[rank:].square().sum())
        total += float(values.square().sum())
    return squeezed, (error / total) ** 0.5 if total > 0 else 0.0


def rank_of(factors: Mapping[str, Factors]) -> int:
    """The rank that all modules of an adapter share."""
    return next(iter(factors.values())).lora_a.shape[0]
