"""What sizes are counted in: the layers of a model, and the batches of a run."""

from typing import NamedTuple

FLOAT32 = 4
"""Bytes."""


class Layers(NamedTuple):
    """The target modules, summed over them."""

    modules: int
    area: int
    """d_out * d_in."""
    outputs: int
    """d_out."""
    inputs: int
    """d_in."""
    largest: int
    """d_out * d_in of the largest."""

    @property
    def width(self) -> int:
        """d_out + d_in: LoRA of rank r has r times as many parameters."""
        return self.outputs + self.inputs


class BatchShape(NamedTuple):
    """One padded batch."""

    rows: int
    length: int
    scored: int
    """Tokens whose loss is taken, and whose logits are computed, all rows together."""

    @property
    def tokens(self) -> int:
        """Positions that are computed, padding included."""
        return self.rows * self.length


class Device(NamedTuple):
    """Where a start is measured."""

    number_bytes: int
    """Of the model's number format."""
    is_host: bool
    """Whether the host's memory is the model's, as on a CPU."""
