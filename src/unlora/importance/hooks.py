"""One ordinary backward pass gives a layer's input and output gradient for every example of the batch.

For y = W x, the gradient of the summed loss with respect to W is the sum over positions of
(output gradient)(input)^T. The loss of one example reaches only its own positions, so row b of the two tensors
holds everything about example b: G_b = D_b^T X_b with D_b (token, d_out) and X_b (token, d_in).

Nothing is inserted into the model: a forward hook passes the output through an identity function whose backward
sees both tensors. Because the input is kept with `save_for_backward`, activation checkpointing recomputes it like
any other saved tensor, and the backward runs exactly once in either checkpointing mode.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from unlora.errors import InputError
from unlora.models.layer_use import keeps_examples_apart, writable_leaf

LEAVE_OUT = "leave it out (adapter.exclude_modules)"
EMPTY = (torch.empty(0), torch.empty(0))
"""In place of what was consumed."""

Consumer = Callable[[str, Float[Tensor, "batch token d_in"], Float[Tensor, "batch token d_out"]], None]


class Tap(torch.autograd.Function):
    """Passes an output on and hands its gradient over together with the input that was kept."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, inputs: Tensor, consume: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.consume = consume
        return output.data  # The same memory, and no view to autograd: some models go on to write in it.

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.consume(ctx.saved_tensors[0], gradients[0])
        return gradients[0], None, None


class GradientTaps:
    """Feeds `consume(name, inputs, output_gradients)` once per module and backward pass.

    A module that a forward pass uses several times (a block that a model shares among its layers) is fed once, the
    positions of all its uses one after another: its gradient is the sum over them all.
    """

    def __init__(self, modules: Mapping[str, nn.Module], consume: Consumer) -> None:
        self._modules = modules
        self._consume = consume
        self._batch_shape = (0, 0)
        self._uses: Counter[str] = Counter()
        self._forward = True
        self._arrived: dict[str, list[tuple[Tensor, Tensor]]] = {}

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
        self._uses.clear()
        self._arrived.clear()
        self._forward = True

    def start_backward(self) -> None:
        """Say that the forward pass is over: what checkpointing repeats of it from now on is no further use."""
        self._forward = False

    def finish_batch(self) -> None:
        """Check that every module was seen.

        Raises:
            InputError: a target module took no part in the loss, so the batch adds nothing to its statistics.
        """
        for name in self._modules:
            if len(self._arrived.get(name, ())) < max(1, self._uses[name]):
                raise InputError(f"target module '{name}' took no part in the loss; {LEAVE_OUT}.")

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Any]:
        def consume(inputs: Tensor, gradients: Tensor) -> None:
            arrived = self._arrived.setdefault(name, [])
            arrived.append((self._by_example(name, inputs), self._by_example(name, gradients)))
            uses = max(1, self._uses[name])
            if len(arrived) > uses:
                raise InputError(f"target module '{name}' is used more than once in a forward pass; {LEAVE_OUT}.")
            if len(arrived) == uses:
                inputs, gradients = arrived[0]
                if uses > 1:
                    inputs, gradients = (torch.cat(tensors, dim=1) for tensors in zip(*arrived, strict=True))
                arrived[:] = [EMPTY] * uses
                self._consume(name, inputs, gradients)

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Any:
            # Reentrant checkpointing runs its first forward without gradients; the second one counts.
            if not isinstance(output, Tensor):
                raise InputError(f"target module '{name}' gives more than one tensor; {LEAVE_OUT}.")
            if not output.requires_grad:
                return output
            self._uses[name] += self._forward
            return Tap.apply(output, inputs[0].detach(), consume)

        return hook

    def _by_example(self, name: str, tensor: Tensor) -> Tensor:
        batch_size, token_count = self._batch_shape
        if not keeps_examples_apart(tensor.shape, batch_size, token_count):
            raise InputError(
                f"target module '{name}' sees a tensor of shape {tuple(tensor.shape)}, in which the {batch_size} "
                f"examples of {token_count} tokens do not lie one after another; {LEAVE_OUT}."
            )
        return tensor.reshape(batch_size, -1, tensor.shape[-1])


@contextmanager
def measuring(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, no parameter gradients, gradients through activations only; everything is put back.

    Activation checkpointing stays on where it was asked for: transformers looks at each block's own `training`
    flag, which can be set without switching dropout on in the block's children.
    """
    training = {module: module.training for module in model.modules()}
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    embeddings = model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _module, _inputs, output: writable_leaf(output)[1])
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
