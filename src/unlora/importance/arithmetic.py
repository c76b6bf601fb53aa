"""Which arithmetic a map was made with, where it is not ours."""

from typing import Literal

from unlora.config import Config

AccumulatorDtype = Literal["gradient", "float32", "bfloat16"]


class PublishedArithmetic(Config):
    """How the released procedure (`importance.published`) was run; a map that carries this was measured by it."""

    passes: int
    """Passes over the forget set, every one with the same batches."""
    batch_size: int
    """Forget examples of a batch; each brings one retain example along."""
    scaling: float | None
    """s of the inserted s B A (lora_factors only)."""
    accumulator_dtype: str
    """Number format of the running sums, and so of the map and the row weights made from them."""
