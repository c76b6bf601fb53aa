"""ReGLU's start, and the penalty that goes with it."""

from typing import Any, ClassVar

from pydantic import Field

from unlora.starts.representation import PENALTY_WEIGHT, OrthogonalityPenalty, representation_start
from unlora.starts.start import Start, Started, StartInputs


class Reglu(Start):
    """Outputs that set forget apart from retain examples (ReGLU, arXiv 2604.17396)."""

    kind: str = "reglu"
    orthogonality: float = Field(default=PENALTY_WEIGHT, ge=0)
    """Weight of the penalty that keeps B out of the retain set's outputs while it trains."""
    batch_size: int = Field(default=8, ge=1)
    """Examples per forward pass."""
    max_retain_examples: int = Field(default=256, ge=2)
    """Retain examples that are read, drawn with the run's seed."""

    needs_retain: ClassVar[bool] = True
    by_example: ClassVar[bool] = True
    whole_factors: ClassVar[bool] = True

    def begin(self, inputs: StartInputs, measured: Any) -> Started:
        """Read both sets, forward only."""
        forget = inputs.data.forget_batches(self.batch_size)
        retain = inputs.data.retain_batches(self.batch_size, self.max_retain_examples) or ()
        with inputs.task("Starting factors", len(inputs.targets)) as progress:
            start = representation_start(inputs.model, inputs.targets, forget, retain, inputs.request(progress))
        penalty = OrthogonalityPenalty(start.retain_subspaces, self.orthogonality)
        return Started(start.factors, penalty.to(inputs.model.device))
