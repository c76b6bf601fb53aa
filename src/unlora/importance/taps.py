"""Taps on everything that is measured: linear layers, and experts that share a tensor."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from unlora.importance.expert_taps import ExpertTaps
from unlora.importance.hooks import Consumer, GradientTaps
from unlora.models.experts import ExpertModule
from unlora.models.target_modules import TargetModule


class Taps:
    """Both kinds, told of a batch together."""

    def __init__(self, *parts: GradientTaps | ExpertTaps) -> None:
        self._parts = parts

    def start_batch(self, batch_size: int, token_count: int) -> None:
        """Say how many examples, of how many positions, the coming forward pass has."""
        for part in self._parts:
            part.start_batch(batch_size, token_count)

    def start_backward(self) -> None:
        """Say that the forward pass is over."""
        for part in self._parts:
            part.start_backward()

    def finish_batch(self) -> None:
        """Check that everything was seen.

        Raises:
            InputError: a target module took no part in the loss.
        """
        for part in self._parts:
            part.finish_batch()


@contextmanager
def tapped(targets: Mapping[str, TargetModule], consume: Consumer) -> Iterator[Taps]:
    """Feed `consume(name, inputs, output_gradients)` once per target and backward pass, while the context is open."""
    experts = {name: target for name, target in targets.items() if isinstance(target, ExpertModule)}
    layers = {name: target.module for name, target in targets.items() if name not in experts}
    with GradientTaps(layers, consume).attached() as first, ExpertTaps(experts, consume).attached() as second:
        yield Taps(first, second)
