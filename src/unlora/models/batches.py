"""Sequences of different lengths in rectangular batches."""

from collections.abc import Sequence
from typing import Literal

import torch

from unlora.shapes import TokenIds


def longest_first(lengths: Sequence[int], batch_size: int, *, sizes: Sequence[int] | None = None) -> list[list[int]]:
    """Group indices so that similar lengths share a batch, longest first (running out of memory shows at once).

    Args:
        lengths: Length in tokens of what each index stands for.
        batch_size: Rows in a batch.
        sizes: Rows that each index takes, all in one batch; by default one.
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        size = 1 if sizes is None else sizes[index]
        if size > room:
            batches.append([])
            room = batch_size
        batches[-1].append(index)
        room -= size
    return batches


def pad_batch(
    sequences: Sequence[Sequence[int]], *, pad_token_id: int, side: Literal["left", "right"], device: torch.device
) -> tuple[TokenIds, TokenIds]:
    """Return input_ids and attention_mask, both (batch, token) on `device`, padded to the longest sequence."""
    width = max(len(sequence) for sequence in sequences)
    input_ids = torch.full((len(sequences), width), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, sequence in enumerate(sequences):
        columns = slice(0, len(sequence)) if side == "right" else slice(width - len(sequence), width)
        input_ids[row, columns] = torch.tensor(sequence, dtype=torch.long)
        attention_mask[row, columns] = 1
    return input_ids.to(device), attention_mask.to(device)
