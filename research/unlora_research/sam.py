"""Sharpness-aware minimisation of the forget term: its gradient is taken where that term is worst nearby."""

from typing import ClassVar

from torch import Tensor, nn

from unlora.training import UnlearnTrainer
from unlora_research.sides import ascended, gradients_of, loss_with, refuse_several_processes, trained_parameters


class SamTrainer(UnlearnTrainer):
    """Minimise forget term at theta + rho g / ||g|| + retain_weight x retain term at theta, g the forget gradient.

    Fan et al. 2025 (arXiv 2502.05374, NPO+SAM), after Foret et al. 2020 (arXiv 2010.01412). Theta are the trained
    factors of the adapter and not the weights of the paper: a product B A is the same for B c and A / c, so that a rho
    here says nothing about one there. It reads the forget examples twice, and costs half as much again.
    """

    rho: ClassVar[float] = 0.05
    """Length of the ascent in the trained factors' unit; 0 is plain training."""

    def compute_loss(  # type: ignore[override]
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Three passes; the value is that of plain training, the forget side's gradient that of the ascended point."""
        if not self.rho:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        refuse_several_processes(type(self).__name__)
        trained = trained_parameters(model)
        forget = self.forget_side(model, inputs)
        with ascended(trained, gradients_of(forget.loss, trained), self.rho):
            gradients = gradients_of(self.forget_side(model, inputs).loss, trained)
        retain = self.retain_side(model, inputs)
        self.log_sides(forget, retain, inputs)
        return loss_with(forget.loss, trained, gradients) + retain.loss


class NearSamTrainer(SamTrainer):
    """With the rho of the paper's code, which is of weights there and of factors here."""

    rho = 0.01


class FarSamTrainer(SamTrainer):
    """Twenty times as far."""

    rho = 1.0
