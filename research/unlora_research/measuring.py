"""A model of a small world that gradients are taken of, with the batches it sees, and what it is asked."""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from unlora.data.collate import collate, shortest_first
from unlora.data.records import Example
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.importance.accumulate import Batch
from unlora.models.load import load_model
from unlora.models.wrapping import CausalModel
from unlora_research.halves import Known
from unlora_research.small_world import probabilities


class MeasuredModel(NamedTuple):
    """A model and the tokeniser of its examples."""

    model: PreTrainedModel
    tokeniser: ExampleTokeniser

    @classmethod
    def load(cls, folder: Path, device: str) -> "MeasuredModel":
        """Load a model in float32; its examples are read as small worlds teach them (`small_world`)."""
        loaded = load_model(str(folder), dtype=torch.float32, device=torch.device(device))
        return cls(loaded.model, ExampleTokeniser(loaded.tokenizer, template="plain", max_length=128))

    def batches(self, examples: Iterable[Example], size: int) -> list[Batch]:
        """Batches of at most `size` examples, those of similar length together."""
        tokens = self.tokeniser.encode_set(examples)
        pad = self.tokeniser.pad_token_id
        return [collate([tokens[row] for row in rows], pad) for rows in shortest_first(tokens, size)]


class Questions(NamedTuple):
    """What every model of a cell is asked."""

    forget: list[TokenisedExample]
    held_out: list[TokenisedExample]
    pad_token_id: int

    def ask(self, model: CausalModel) -> Known:
        """Ask both sets."""
        forget, held_out = (probabilities(model, one, self.pad_token_id) for one in (self.forget, self.held_out))
        return Known(fmean(forget), fmean(held_out))
