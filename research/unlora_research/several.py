"""Several statistics of one layer from one pass over a set."""

import math

from unlora.importance.spaces import Inputs, ModuleStatistics, OutputGradients


class Several:
    """Hands one batch to several statistics, to some of them as the gradient of the batch's mean loss."""

    def __init__(
        self,
        of_examples: dict[str, ModuleStatistics],
        of_batches: dict[str, ModuleStatistics],
        batch_size: int,
    ) -> None:
        """Keep both groups by the names of their estimates.

        Args:
            of_examples: take one gradient of every example.
            of_batches: take one gradient of every `batch_size` examples, that of the mean of their losses.
            batch_size: examples.
        """
        self.of_examples = of_examples
        self.of_batches = of_batches
        self._batch_size = batch_size

    def update(self, inputs: Inputs, output_gradients: OutputGradients) -> None:
        """Take in one batch."""
        for statistics in self.of_examples.values():
            statistics.update(inputs, output_gradients)
        size = self._batch_size
        for some, of_some in zip(inputs.split(size), output_gradients.split(size), strict=True):
            for statistics in self.of_batches.values():
                statistics.update(some.flatten(0, 1)[None], (of_some / len(of_some)).flatten(0, 1)[None])

    def skip(self, sample_count: int) -> None:
        """Pass over a batch that another process takes in."""
        for statistics in self.of_examples.values():
            statistics.skip(sample_count)
        for statistics in self.of_batches.values():
            for _ in range(math.ceil(sample_count / self._batch_size)):
                statistics.skip(1)

    def combine(self) -> None:
        """Add what the other processes have taken in; once, after the last batch."""
        for statistics in (*self.of_examples.values(), *self.of_batches.values()):
            statistics.combine()
