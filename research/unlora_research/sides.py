"""The two sides of an objective taken at different weights of a model: what the trainers of this laboratory share.

`UnlearnTrainer` differentiates forget and retain term at one point. These take the forget side's gradient elsewhere and
lay it on the parameters by a loss that has it: everything else of a step (clipping, accumulation, Adam) stays the stock
Trainer's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unlora import processes
from unlora.errors import InputError
from unlora.training import UnlearnTrainer
from unlora.training.trainer import Side


class SidesTrainer(UnlearnTrainer):
    """Takes the forget side's gradient elsewhere than at the trained weights, and the retain side's at them."""

    @property
    def is_plain(self) -> bool:
        """Whether there is nowhere else: training is that of `UnlearnTrainer` then."""
        raise NotImplementedError

    def forget_elsewhere(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Side, list[Tensor]]:
        """The forget side as it is logged, and its gradients for `trained_parameters`; the weights are as before."""
        raise NotImplementedError

    def compute_loss(  # type: ignore[override]
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """One pass of the retain side after those of the forget side; the value is that of plain training."""
        if self.is_plain:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        refuse_several_processes(type(self).__name__)
        forget, gradients = self.forget_elsewhere(model, inputs)
        retain = self.retain_side(model, inputs)
        self.log_sides(forget, retain, inputs)
        return loss_with(forget.loss, trained_parameters(model), gradients) + retain.loss


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Whatever asks for a gradient, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def gradients_of(loss: Float[Tensor, ""], parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Gradients in the parameters' shapes; zeros where the loss does not depend on one. `.grad` is left alone."""
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


def loss_with(value: Tensor, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> Float[Tensor, ""]:
    """A loss of a given value whose gradients are the given ones."""
    inner = torch.stack([(one * gradient).sum() for one, gradient in zip(parameters, gradients, strict=True)]).sum()
    return value.detach() + (inner - inner.detach())


@contextmanager
def ascended(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor], rho: float) -> Iterator[None]:
    """Move parameters by rho g / ||g||, the norm over all of them together, and put back the bits that they had.

    Foret et al. 2020 (arXiv 2010.01412), equation 2, with p = 2. A gradient of nought moves nothing.

    Args:
        parameters: leaves; written to and restored.
        gradients: g, in their shapes.
        rho: length of the step, in the parameters' own unit; 0 moves nothing.
    """
    norm = torch.stack([one.float().norm() for one in gradients]).norm()
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True) if norm > 0 else ():
                parameter.add_(gradient * (rho / norm))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def refuse_several_processes(who: str) -> None:
    """Refuse what takes gradients past the engine that adds those of several processes up.

    Raises:
        InputError: there are several.
    """
    if processes.count() > 1:
        raise InputError(f"training.trainer '{who}': works in one process; start it without accelerate.")
