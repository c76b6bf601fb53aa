"""Who teaches the forgotten again: one class for each way of training. A new one is a subclass and a row of the table.

An attacker changes whatever is deployed for as long as it trains and leaves no trace. Hu et al. 2024 (arXiv 2406.13356)
attack with LoRA; Deeb & Roger 2024 (arXiv 2410.08827) and UNDO (arXiv 2506.06278) with full fine-tuning at the worst of
several learning rates.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from unlora.audit.adversary import attacked
from unlora.models.quantised import quantisation_of
from unlora.models.wrapping import CausalModel, canonical_name

LessonName = Literal["few", "full", "retain", "unrelated"]
"""What an attacker learns from. few: a tenth of the forget set, tested on the rest; full: all of it, tested on all of
it; retain: retain records alone; unrelated: fictitious people."""


@dataclass(frozen=True)
class Attacker(ABC):
    """One way to train, from one kind of text."""

    learning_rate: float
    """Of AdamW, constant."""
    learns_from: LessonName = "few"

    def lacks(self, model: CausalModel) -> str | None:
        """Say why a model cannot be trained like this; None when it can."""
        return None

    @abstractmethod
    def attacking(self, model: CausalModel, *, seed: int) -> AbstractContextManager[CausalModel]:
        """Yield the model with what is to be trained asking for gradients, and nothing else; then put all of it back.

        Before the first step it must answer as the model does. Whoever yields float32 parameters loses no small step to
        rounding.

        Args:
            model: unlearned, with its adapter switched on and frozen; or a plain model, the control.
            seed: of whatever is drawn.
        """


@dataclass(frozen=True)
class LoraAttacker(Attacker):
    """A LoRA adapter on every linear layer, above the unlearning adapter."""

    rank: int = 8

    def attacking(self, model: CausalModel, *, seed: int) -> AbstractContextManager[CausalModel]:
        return attacked(model, rank=self.rank, seed=seed)


@dataclass(frozen=True)
class FullAttacker(Attacker):
    """Every weight of the model, in float32; an unlearning adapter stays in place, which is the same as merged."""

    def lacks(self, model: CausalModel) -> str | None:
        if quantisation_of(model) is not None:
            return "rounded weights cannot be trained"
        return None

    @contextmanager
    def attacking(self, model: CausalModel, *, seed: int) -> Iterator[CausalModel]:
        weights = {
            name: parameter
            for name, parameter in model.named_parameters()
            if canonical_name(name) is not None and parameter.is_floating_point()
        }
        # The weights as they are stay where they lie; what is trained is a copy.
        kept = {name: parameter.data for name, parameter in weights.items()}
        asked = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        try:
            model.requires_grad_(False)
            for parameter in weights.values():
                parameter.data = parameter.data.to(torch.float32, copy=True)
                parameter.requires_grad_(True)
            yield model
        finally:
            for name, parameter in weights.items():
                parameter.grad = None
                parameter.data = kept[name]
            for parameter, was in asked:
                parameter.requires_grad_(was)
