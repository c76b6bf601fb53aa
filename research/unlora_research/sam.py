"""Sharpness-aware minimisation of the forget term: its gradient is taken where that term is worst nearby."""

from typing import ClassVar

from torch import Tensor, nn

from unlora.training.trainer import Side
from unlora_research.sides import SidesTrainer, ascended, gradients_of, trained_parameters


class SamTrainer(SidesTrainer):
    """Minimise forget term at theta + rho g / ||g|| + retain_weight x retain term at theta, g the forget gradient.

    Fan et al. 2025 (arXiv 2502.05374, NPO+SAM), after Foret et al. 2020 (arXiv 2010.01412). Theta are the trained
    factors of the adapter and not the weights of the paper: a product B A is the same for B c and A / c, so that a rho
    here says nothing about one there. It reads the forget examples twice, and costs half as much again.
    """

    rho: ClassVar[float] = 0.05
    """Length of the ascent in the trained factors' unit; 0 is plain training."""

    @property
    def is_plain(self) -> bool:
        """Without an ascent."""
        return not self.rho

    def forget_elsewhere(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Side, list[Tensor]]:
        """Two passes: the value of the first, where the weights are, and the gradients of the ascended point."""
        trained = trained_parameters(model)
        forget = self.forget_side(model, inputs)
        with ascended(trained, gradients_of(forget.loss, trained), self.rho):
            return forget, gradients_of(self.forget_side(model, inputs).loss, trained)


class NearSamTrainer(SamTrainer):
    """With the rho of the paper's code, which is of weights there and of factors here."""

    rho = 0.01


class FarSamTrainer(SamTrainer):
    """Twenty times as far."""

    rho = 1.0
