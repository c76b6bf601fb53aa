"""Tokenised examples into padded tensors."""

from collections.abc import Sequence

import torch

from unlora.data.tokenise import TokenisedExample
from unlora.losses.log_probs import NOT_SCORED
from unlora.shapes import TokenIds


def collate(examples: Sequence[TokenisedExample], pad_token_id: int) -> dict[str, TokenIds]:
    """Pad on the right to the longest example.

    Returns:
        `input_ids`, `attention_mask` (1 on real tokens) and `labels` (-100 on prompt and padding), each (batch, token)
        and int64. Labels are not shifted: the model's loss does that.
    """
    length = max(len(example.input_ids) for example in examples)
    input_ids = torch.full((len(examples), length), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, NOT_SCORED)
    for row, example in enumerate(examples):
        end = len(example.input_ids)
        input_ids[row, :end] = torch.tensor(example.input_ids)
        attention_mask[row, :end] = 1
        labels[row, example.prompt_length : end] = input_ids[row, example.prompt_length : end]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def shortest_first(examples: Sequence[TokenisedExample], batch_size: int) -> list[list[int]]:
    """Group indices of similar length to waste little padding: every index once, shortest first, ties in order."""
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].input_ids))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
