"""Starts that read no data."""

from typing import Any, ClassVar

from unlora.starts.initialise import initial_factors
from unlora.starts.start import Start, Started, StartInputs


class Plain(Start):
    """Ordinary LoRA (arXiv 2106.09685): A random, B = 0."""

    kind: str = "plain"
    anchored: ClassVar[bool] = False
    takes_experts: ClassVar[bool] = True

    def begin(self, inputs: StartInputs, measured: Any) -> Started:
        """PEFT draws A."""
        return Started(None)


class Uniform(Start):
    """The best rank-r approximation of each weight, all entries weighing the same: PiSSA's start (arXiv 2404.02948)."""

    kind: str = "uniform"
    takes_experts: ClassVar[bool] = True

    def begin(self, inputs: StartInputs, measured: Any) -> Started:
        """Leading singular directions of every layer."""
        with inputs.task("Starting factors", len(inputs.targets)) as progress:
            return Started(
                initial_factors(
                    inputs.targets,
                    None,
                    rank=inputs.rank,
                    scaling=inputs.scaling,
                    seed=inputs.data.seed,
                    progress=progress,
                )
            )
