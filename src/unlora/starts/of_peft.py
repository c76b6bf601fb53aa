"""Starts of the literature that PEFT computes, all through the same anchored adapter."""

from typing import Any, ClassVar

from pydantic import Field

from unlora.starts.peft_factors import corda_factors, data_free_factors, eva_factors, lora_ga_factors
from unlora.starts.start import Start, Started, StartInputs


class Olora(Start):
    """Leading columns and rows of W = Q R (OLoRA, arXiv 2406.01775); reads no data."""

    kind: str = "olora"

    def begin(self, inputs: StartInputs, measured: Any) -> Started:
        """Decompose every layer."""
        with inputs.task("Starting factors", len(inputs.targets)) as progress:
            return Started(data_free_factors("olora", inputs.targets, inputs.request(progress)))


class Corda(Start):
    """What the retain set's inputs use least of W (CorDA, arXiv 2406.05223)."""

    kind: str = "corda"
    batch_size: int = Field(default=8, ge=1)
    """Examples per forward pass."""
    max_retain_examples: int = Field(default=64, ge=2)
    """Retain examples that are read, drawn with the run's seed."""

    needs_retain: ClassVar[bool] = True

    def begin(self, inputs: StartInputs, measured: Any) -> Started:
        """Read the retain set, forward only."""
        retain = inputs.data.retain_batches(self.batch_size, self.max_retain_examples) or ()
        with inputs.task("Starting factors", len(inputs.targets)) as progress:
            return Started(corda_factors(inputs.model, inputs.targets, retain, inputs.request(progress)))


class Eva(Start):
    """A spans the forget set's inputs, B = 0 (EVA, arXiv 2410.07170)."""

    kind: str = "eva"
    batch_size: int = Field(default=8, ge=1)
    """Examples per forward pass."""

    anchored: ClassVar[bool] = False

    def begin(self, inputs: StartInputs, measured: Any) -> Started:
        """Read the forget set, forward only, until PEFT's decomposition converges."""
        forget = inputs.data.forget_batches(self.batch_size)
        with inputs.task("Starting factors", len(inputs.targets)) as progress:
            return Started(eva_factors(inputs.model, inputs.targets, forget, rank=inputs.rank, progress=progress))


class LoraGa(Start):
    """Singular vectors of the forget set's mean gradient (LoRA-GA, arXiv 2407.05000)."""

    kind: str = "lora_ga"
    batch_size: int = Field(default=8, ge=1)
    """Examples per backward pass."""

    def rank_taken(self, rank: int) -> int:
        """It takes 2r singular vectors."""
        return 2 * rank

    def begin(self, inputs: StartInputs, measured: Any) -> Started:
        """One backward pass over the forget set."""
        forget = inputs.data.forget_batches(self.batch_size)
        with inputs.task("Starting factors", len(inputs.targets)) as progress:
            return Started(lora_ga_factors(inputs.model, inputs.targets, forget, inputs.request(progress)))
