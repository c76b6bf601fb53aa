"""Gradients of whole batches as they come out of a backward pass, and the sums that the released code keeps of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

Leaf = tuple[str, str]
"""Canonical module name, and the field of its importance record."""


class BatchSums:
    """S1 = sum n_b g_b and S2 = sum n_b g_b^2 over batches b of n_b labels with gradient g_b, and N = sum n_b.

    They lie on the CPU, in one number format. In bfloat16 (8 bits) a sum stops growing once it is a few hundred times
    what is added: that is part of what the released code does.
    """

    def __init__(self, dtype: torch.dtype, *, centred: bool) -> None:
        """Start empty; S1 is kept only where a variance is wanted (`centred`)."""
        self.label_count = 0
        self._dtype = dtype
        self._centred = centred
        self._first: dict[Leaf, Tensor] = {}
        self._second: dict[Leaf, Tensor] = {}

    def add(self, leaf: Leaf, gradient: Tensor, label_count: int) -> None:
        """Take in the gradient of one batch."""
        gradient = gradient.detach().to("cpu", self._dtype)
        if leaf not in self._second:
            self._second[leaf] = torch.zeros_like(gradient)
            if self._centred:
                self._first[leaf] = torch.zeros_like(gradient)
        self._second[leaf] += label_count * gradient.square()
        if self._centred:
            self._first[leaf] += label_count * gradient

    def read(self, leaf: Leaf) -> Tensor:
        """V = max(0, S2 / N - (S1 / N)^2) where centred, otherwise S2 as it is.

        Raises:
            KeyError: no batch had a gradient there.
        """
        second = self._second[leaf]
        if not self._centred:
            return second
        mean = self._first[leaf] / self.label_count
        return (second / self.label_count - mean.square()).clamp_(min=0)


class LeafGradients:
    """Hands every leaf's gradient over as soon as the backward pass has it, and frees it: never all of them at once."""

    def __init__(self, leaves: Mapping[Leaf, Tensor]) -> None:
        """Remember the leaves; nothing is changed yet."""
        self._leaves = leaves
        self._take: Callable[[Leaf, Tensor], None] | None = None

    @contextmanager
    def attached(self) -> Iterator["LeafGradients"]:
        """Ask for the leaves' gradients; hooks and former `.grad` are put back on every way out."""
        former = {leaf: (tensor.grad, tensor.requires_grad) for leaf, tensor in self._leaves.items()}
        with ExitStack() as stack:
            stack.callback(self._put_back, former)
            for leaf, tensor in self._leaves.items():
                tensor.grad = None
                tensor.requires_grad_(True)
                stack.callback(tensor.register_post_accumulate_grad_hook(self._hook(leaf)).remove)
            yield self

    def backward(self, loss: Tensor, take: Callable[[Leaf, Tensor], None]) -> None:
        """Run the backward pass of `loss`; `take` gets each leaf's gradient once."""
        self._take = take
        loss.backward()
        self._take = None

    def _hook(self, leaf: Leaf) -> Callable[[Tensor], None]:
        def hand_over(tensor: Tensor) -> None:
            gradient, tensor.grad = tensor.grad, None
            if gradient is not None and self._take is not None:
                self._take(leaf, gradient)

        return hand_over

    def _put_back(self, former: Mapping[Leaf, tuple[Tensor | None, bool]]) -> None:
        for leaf, (gradient, requires_grad) in former.items():
            tensor = self._leaves[leaf]
            tensor.grad = gradient
            tensor.requires_grad_(requires_grad)
