"""One pass over a set: every batch's inputs and output gradients, layer by layer, to whoever takes statistics."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from unlora import processes
from unlora.errors import InputError
from unlora.importance.importance_map import SetCounts
from unlora.importance.moments import GradientUnit, Reduction
from unlora.importance.spaces import Inputs, OutputGradients
from unlora.importance.taps import tapped
from unlora.losses.log_probs import NOT_SCORED, Predictions
from unlora.models.scored import scored_logits
from unlora.models.target_modules import TargetModule

Batch = Mapping[str, Tensor]
MODEL_INPUTS = ("input_ids", "attention_mask", "labels")


@runtime_checkable
class Accumulator(Protocol):
    """Takes in one layer's inputs and output gradients, batch by batch."""

    def update(self, inputs: Inputs, output_gradients: OutputGradients) -> None:
        """Take in one batch."""
        ...

    def skip(self, sample_count: int) -> None:
        """Pass over a batch that another process takes in, so that the next one finds all as if it had been here."""
        ...

    def combine(self) -> None:
        """Add what the other processes have taken in; once, after the last batch."""
        ...


@dataclass(frozen=True)
class Sample:
    """What one gradient is taken of."""

    unit: GradientUnit = "example"
    """A batch's is the gradient of the mean of its scored examples' losses."""
    reduction: Reduction = "mean"
    """Whether an example's loss is the mean or the sum over its completion tokens."""


def reported(batches: Iterable[Batch], progress: Callable[[int], None] | None) -> Iterator[Batch]:
    """Pass batches on; when the next one is asked for, `progress` is told the number of examples of the last."""
    for batch in batches:
        yield batch
        if progress is not None:
            progress(len(batch["labels"]))


def accumulate(
    model: PreTrainedModel,
    targets: Mapping[str, TargetModule],
    batches: Iterable[Batch],
    statistics: Mapping[str, Accumulator],
    *,
    set_name: str,
    sample: Sample = Sample(),
) -> SetCounts:
    """Run every batch forward and backward once, within `measuring(model)`.

    Several processes share the work: all of them get all batches, each runs its own, the statistics are summed at the
    end. What depends on a batch's place in the set (which batches are paired, which half a sample is in, its random
    signs) goes by its place among all batches, so that the result is one process's up to the rounding of sums.

    A sample is what `statistics` take one gradient of. Where it is a batch, it is the gradient of the mean, over the
    batch's scored examples, of their losses; all samples count the same, so the examples of a smaller last batch weigh
    more than others. (The mean is over examples, not over tokens as in Hugging Face's loss.)

    Args:
        model: the model that is measured.
        targets: canonical name -> layer.
        batches: dict batches of input_ids, attention_mask, labels (batch, token); labels -100 is not scored.
        statistics: canonical name -> what takes in that layer's X (sample, token, d_in) and D (sample, token, d_out);
            a sample that is a batch comes with the tokens of all its examples.
        set_name: "forget" or "retain", for messages.
        sample: what one gradient is taken of.

    Raises:
        InputError: a target module took no part in the loss, or does not keep the examples apart; or a gradient is not
            finite, which would spoil the statistics of the whole set.
    """
    example_count = token_count = unscored_count = batch_count = 0
    turns = Turns()
    finite: dict[str, Bool[Tensor, " batch"]] = {}

    def consume(name: str, inputs: Inputs, output_gradients: OutputGradients) -> None:
        # The largest of an example is finite where all are, a tenth of the price of asking each number.
        finite[name] = output_gradients.abs().flatten(1).amax(dim=1).isfinite()
        if sample.unit == "batch":
            # The gradient of the mean is D^T X over all positions of the batch, over the number of its examples.
            inputs, output_gradients = (
                inputs.flatten(0, 1)[None],
                (output_gradients / len(output_gradients)).flatten(0, 1)[None],
            )
        statistics[name].update(inputs, output_gradients)

    with tapped(targets, consume) as taps:
        for number, batch in enumerate(batches, start=1):
            labels = batch["labels"]
            token_counts = (labels[:, 1:] != NOT_SCORED).sum(dim=1)  # Nothing predicts the first token.
            scored = token_counts > 0
            scored_count = int(scored.sum())
            sample_count = 1 if sample.unit == "batch" else scored_count
            batch_count += scored_count > 0
            if scored_count > 0 and turns.is_mine(sample_count):
                taps.start_batch(scored_count, labels.shape[1])
                scored_batch = {key: batch[key][scored].to(model.device) for key in MODEL_INPUTS}
                loss = _summed_loss(model, scored_batch, sample.reduction)
                taps.start_backward()
                loss.backward()
                taps.finish_batch()
                _refuse_undefined(finite, f"the {set_name} set, batch {number}")
                finite.clear()
            elif scored_count > 0:
                for one in statistics.values():
                    one.skip(sample_count)
            example_count += scored_count
            token_count += int(token_counts.sum())
            unscored_count += len(labels) - scored_count
    if processes.count() > 1:
        for one in statistics.values():
            one.combine()
    return SetCounts(
        example_count=example_count,
        token_count=token_count,
        unscored_count=unscored_count,
        sample_count=batch_count if sample.unit == "batch" else example_count,
    )


def _refuse_undefined(finite: Mapping[str, Bool[Tensor, " batch"]], where: str) -> None:
    """Refuse a batch in which an example has an infinite or undefined gradient.

    Args:
        finite: layer -> for each example whether its gradient is; in the order of the backward pass, so that the first
            layer to lose one is where it happened.
        where: set and batch.

    Raises:
        InputError: naming set, batch and layer.
    """
    by_layer = torch.stack(list(finite.values()))  # One wait for the device a batch, not one a layer.
    lost = (~by_layer).cpu()
    if not lost.any():
        return
    layer = list(finite)[int(lost.any(dim=1).nonzero()[0])]
    raise InputError(
        f"{where}: the gradient of {int(lost.any(dim=0).sum())} of its {lost.shape[1]} examples is not finite, at "
        f"target module '{layer}' first; look for weights that are not finite, or take a wider dtype (float32)."
    )


class Turns:
    """Whose turn a batch is: process after process, but a batch of one sample goes with the one after it.

    A single sample has no pair; statistics that compare samples keep it until the next batch.
    """

    def __init__(self) -> None:
        """Start with the first process."""
        self._count = 0
        self._waiting = False

    def is_mine(self, sample_count: int) -> bool:
        """Whether the next batch, of so many samples, is for this process."""
        mine = self._count % processes.count() == processes.index()
        self._waiting = sample_count == 1 and not self._waiting
        self._count += not self._waiting
        return mine


def _summed_loss(model: PreTrainedModel, batch: Batch, reduction: Reduction) -> Float[Tensor, ""]:
    """Sum over the batch of each example's own loss, so that an example's gradient does not depend on its company."""
    predictions = Predictions.from_scored(scored_logits(model, batch), batch["labels"])
    log_probs = predictions.mean_log_probs() if reduction == "mean" else predictions.sequence_log_probs()
    return -log_probs.sum()
