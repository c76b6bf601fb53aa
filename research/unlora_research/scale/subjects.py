"""A random model of a given size, and random tokens."""

from typing import NamedTuple

import numpy
import torch
from pydantic import Field
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from unlora.config import Config
from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.importance.accumulate import Batch

BATCH_SIZE, VOCABULARY, HEAD, PAD = 8, 1024, 32, 0


class Point(Config):
    """Sizes of one measurement."""

    examples: int = Field(default=16, ge=2 * BATCH_SIZE)
    """In each set."""
    length: int = Field(default=32, ge=4)
    """Tokens of an example; the second half is scored."""
    rank: int = Field(default=8, ge=1)
    width: int = Field(default=256, ge=HEAD)
    """Of the model, a multiple of 32."""
    depth: int = Field(default=4, ge=1)
    """Blocks."""


class Subject(NamedTuple):
    """A random model and two sets of random tokens."""

    model: PreTrainedModel
    forget: list[TokenisedExample]
    retain: list[TokenisedExample]

    def batches(self) -> tuple[list[Batch], list[Batch]]:
        """Both sets on the model's device."""
        return self._batches(self.forget), self._batches(self.retain)

    def _batches(self, examples: list[TokenisedExample]) -> list[Batch]:
        parts = (examples[at : at + BATCH_SIZE] for at in range(0, len(examples), BATCH_SIZE))
        return [{key: value.to(self.model.device) for key, value in collate(part, PAD).items()} for part in parts]


def subject(point: Point, seed: int, device: str) -> Subject:
    """Draw weights and tokens."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=point.width,
        intermediate_size=8 * point.width // 3 // 32 * 32,
        num_hidden_layers=point.depth,
        num_attention_heads=point.width // HEAD,
        max_position_embeddings=2 * point.length,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=PAD,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.requires_grad_(False).eval()
    tokens = numpy.random.default_rng(seed).integers(2, VOCABULARY, size=(2 * point.examples, point.length))
    examples = [
        TokenisedExample(tuple(map(int, row)), point.length // 2, truncated=False, source=f"random {number}")
        for number, row in enumerate(tokens)
    ]
    return Subject(model, examples[: point.examples], examples[point.examples :])
