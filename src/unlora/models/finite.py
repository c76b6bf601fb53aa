"""A model's weights are numbers."""

import torch
from torch import nn

from unlora.errors import InputError


def refuse_not_finite(name: str, model: nn.Module) -> None:
    """Refuse a model that holds NaN or infinity.

    Its logits do not always say so: torch's attention on a CPU (2.13) loses a NaN of a query or a key, so that such a
    model is scored as another one, and only its gradients are NaN.

    Raises:
        InputError: naming the first tensor.
    """
    for key, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            values = parameter.detach()
            values = values.float() if values.element_size() == 1 else values
            if not torch.isfinite(torch.stack(torch.aminmax(values))).all():
                raise InputError(f"model '{name}': {key} holds NaN or infinity; its files are damaged.")
