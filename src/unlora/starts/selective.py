"""A frozen in minor directions of the forget set's inputs: those that forget and retain set share most are left out."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from unlora.adapters.initial import InitialFactors, refuse_rank
from unlora.errors import InputError
from unlora.importance.accumulate import Batch
from unlora.low_rank.minor import SecondMoment, minor_directions
from unlora.starts.peft_layers import left_as_found
from unlora.starts.reading import add_input_moments
from unlora.starts.start import Start, Started, StartInputs


class Selective(Start):
    """Inputs that the forget set uses and the retain set does not, the ones both use most left out; B = 0 (ours)."""

    kind: str = "selective"
    skip: float = Field(default=0.11, ge=0, lt=1)
    """Share of a layer's width that is left out: the leading components of both sets' inputs together."""
    damping: float = Field(default=0.1, gt=0)
    """Of the retain matrix, in units of its mean eigenvalue."""
    length: float = Field(default=1.0, gt=0)
    """Root mean square, over the forget set's tokens, of what each row of s A gives: directions count alike."""
    batch_size: int = Field(default=8, ge=1)
    """Examples per forward pass."""
    max_retain_examples: int = Field(default=400, ge=2)
    """Retain examples that are read, drawn with the run's seed."""

    anchored: ClassVar[bool] = False
    freezes_a: ClassVar[bool] = True
    by_example: ClassVar[bool] = True

    def begin(self, inputs: StartInputs, measured: Any) -> Started:
        """Read both sets, forward only."""
        data, rank = inputs.data, inputs.rank
        for target in inputs.targets.values():
            refuse_rank(rank, target)
        with inputs.task("Inputs", data.count(self.max_retain_examples)) as progress:
            forget, tokens = self._moments(inputs, data.forget_batches(self.batch_size), progress)
            batches = data.retain_batches(self.batch_size, self.max_retain_examples)
            retain = self._moments(inputs, batches, progress)[0] if batches is not None else {}
        factors = {}
        with inputs.task("Starting factors", len(inputs.targets)) as progress:
            for name, target in inputs.targets.items():
                moment = forget.pop(name)
                try:
                    basis = self.directions(moment, retain.pop(name, None), rank=rank)
                except InputError as error:
                    raise InputError(f"target module '{name}': {error}") from None
                given = ((moment.double() @ basis * basis).sum(dim=0) / tokens).sqrt()
                # A direction that no forget token uses stays as short as the shortest that one does.
                given = given.clamp(min=float(given.max()) * 1e-3)
                lora_a = (basis * (self.length / inputs.scaling) / given).T.float().contiguous()
                factors[name] = InitialFactors(torch.zeros(target.d_out, rank), lora_a, None, "selective", None)
                progress(1)
        return Started(factors)

    def directions(self, forget: SecondMoment, retain: SecondMoment | None, *, rank: int) -> Float[Tensor, "d_in rank"]:
        """Choose the directions of one layer, orthonormal, from both sets' second moments (S_r None: no retain set).

        Raises:
            InputError: fewer than `rank` directions are left, or S_f is zero.
        """
        skip = round(self.skip * len(forget))
        return minor_directions(forget, retain, rank=rank, skip=skip, damping=self.damping)

    def _moments(
        self, inputs: StartInputs, batches: Iterable[Batch], progress: Callable[[int], None]
    ) -> tuple[dict[str, SecondMoment], int]:
        """Sum of x x^T over the real tokens of every example, for each layer's inputs x; and how many tokens."""
        layers = {name: target.module for name, target in inputs.targets.items()}
        moments = {name: torch.zeros(target.d_in, target.d_in) for name, target in inputs.targets.items()}
        with left_as_found(inputs.model, inputs.targets):
            tokens = add_input_moments(inputs.model, layers, moments, batches, progress)
        if not tokens:
            raise InputError("selective: an empty set.")
        return moments, tokens

    def cheaper(self) -> list[dict[str, Any]]:
        """The start that sketches."""
        return [{"kind": "contrast_inputs"}]
