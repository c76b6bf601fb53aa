"""One ordinary backward pass gives a layer's input and output gradient for every example of the batch.

For y = W x, the gradient of the summed loss with respect to W is the sum over positions of
(output gradient)(input)^T. The loss of one example reaches only its own positions, so row b of the two tensors
holds everything about example b: G_b = D_b^T X_b with D_b (token, d_out) and X_b (token, d_in).

Nothing is inserted into the model: a forward hook passes the output through an identity function whose backward
sees both tensors. Because the input is kept with `save_for_backward`, activation checkpointing recomputes it like
any other saved tensor, and the backward runs exactly once in either checkpointing mode.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from unlora.errors import InputError

Consumer = Callable[[str, Float[Tensor, "batch token d_in"], Float[Tensor, "batch token d_out"]], None]


class _Tap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, inputs: Tensor, consume: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.consume = consume
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.consume(ctx.saved_tensors[0], gradients[0])
        return gradients[0], None, None


class GradientTaps:
    """Feeds `consume(name, inputs, output_gradients)` once per module and backward pass."""

    def __init__(self, modules: Mapping[str, nn.Module], consume: Consumer) -> None:
        self._modules = modules
        self._consume = consume
        self._batch_shape = (0, 0)
        self._seen: set[str] = set()

    @contextmanager
    def attached(self) -> Iterator["GradientTaps"]:
        """Hold the hooks; they are removed on every way out."""
        with ExitStack() as stack:
            for name, module in self._modules.items():
                stack.callback(module.register_forward_hook(self._hook(name)).remove)
            yield self

    def start_batch(self, batch_size: int, token_count: int) -> None:
        """Say how many examples, of how many positions, the coming forward pass has."""
        self._batch_shape = (batch_size, token_count)
        self._seen.clear()

    def finish_batch(self) -> None:
        """Check that every module was seen.

        Raises:
            InputError: a target module took no part in the loss, so the batch adds nothing to its statistics.
        """
        missing = [name for name in self._modules if name not in self._seen]
        if missing:
            raise InputError(f"target module '{missing[0]}' took no part in the loss; exclude it.")

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Any]:
        def consume(inputs: Tensor, gradients: Tensor) -> None:
            if name in self._seen:
                raise InputError(f"target module '{name}' is used more than once in a forward pass; exclude it.")
            self._seen.add(name)
            self._consume(name, self._by_example(name, inputs), self._by_example(name, gradients))

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Any:
            # Reentrant checkpointing runs its first forward without gradients; the second one counts.
            return _Tap.apply(output, inputs[0].detach(), consume) if output.requires_grad else output

        return hook

    def _by_example(self, name: str, tensor: Tensor) -> Tensor:
        batch_size, token_count = self._batch_shape
        if tensor.shape[:-1] == (batch_size, token_count):
            return tensor
        if tensor.shape[:-1] == (batch_size * token_count,):
            return tensor.reshape(batch_size, token_count, -1)
        raise InputError(
            f"target module '{name}' sees a tensor of shape {tuple(tensor.shape)} that does not keep the "
            f"{batch_size} examples apart (a mixture-of-experts layer?); exclude it."
        )


@contextmanager
def measuring(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, no parameter gradients, gradients through activations only; everything is put back.

    Activation checkpointing stays on where it was asked for: transformers looks at each block's own `training`
    flag, which can be set without switching dropout on in the block's children.
    """
    training = {module: module.training for module in model.modules()}
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    embeddings = model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_(True))
    try:
        model.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        for module in training:
            if getattr(module, "gradient_checkpointing", False) and not _drops_out_itself(module):
                module.training = True
        with torch.enable_grad():
            yield
    finally:
        handle.remove()
        for module, was in training.items():
            module.training = was
        for parameter, was in trainable.items():
            parameter.requires_grad_(was)


def _drops_out_itself(block: nn.Module) -> bool:
    """Whether a block calls the dropout function (OPT, Falcon) rather than `nn.Dropout` children, as far as one sees.

    Such a block must stay in evaluation mode, at the price of its checkpointing.
    """
    settings = vars(block) | vars(getattr(block, "config", block))
    return any("drop" in key and isinstance(value, int | float) and value > 0 for key, value in settings.items())
