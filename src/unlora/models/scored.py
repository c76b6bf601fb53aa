"""Forward passes for training: logits of the scored tokens alone, whichever positions of their rows these are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unlora.models.forward import completion_output, innermost, takes


class ScoredOutput(NamedTuple):
    """What a forward pass gave."""

    logits: Float[Tensor, "scored vocab"]
    """From which each scored token is predicted, in reading order."""
    output: Any
    """Everything else, as the model returns it."""


def scored_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Float[Tensor, "scored vocab"]:
    """Logits from which the scored tokens of a right-padded batch are predicted, in reading order.

    Args:
        model: a causal language model, with or without PEFT around it.
        batch: input_ids, attention_mask and labels, each (batch, token), -100 where nothing is scored.
    """
    return scored_output(model, batch).logits


def scored_output(model: nn.Module, batch: Mapping[str, Tensor], **options: bool) -> ScoredOutput:
    """Return everything that the forward pass of `scored_logits` gives.

    The head is a large part of a small model. Its input is cut to the scored positions of each row, so that no logits
    of prompts and padding are made, kept, or given a gradient of zeros: the numbers are the same, a step on a processor
    is shorter by a twentieth and takes a tenth less memory (docs/performance.md). Only a plain head is reached that
    way, of a model that takes `logits_to_keep`, which means that what follows the head reads every position by itself;
    of others the logits of all positions from the first label on are made, and then cut.

    Args:
        model: as there.
        batch: as there.
        options: further arguments of the forward pass, such as output_hidden_states.
    """
    scored = batch["labels"][:, 1:] != -100
    head = _plain_head(model)
    if head is None:
        output = completion_output(model, batch, **options)
        return ScoredOutput(output.logits[:, :-1][scored[:, 1 - output.logits.shape[1] :]], output)
    with _reading(head, scored):
        output = completion_output(model, batch, **options)
    return ScoredOutput(output.logits[0], output)


def scored_logits_in_passes(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    order: Int[Tensor, " scored"],
    before: Callable[[int], None],
) -> Float[Tensor, "scored vocab"]:
    """Logits of the scored tokens of several batches, each of which takes a pass of its own, in one order for all.

    The head reads them all at once, in the last pass, and in their order: logits are the largest numbers of a step, and
    to put those of several passes in order would write them out twice more, and their gradients again.

    Args:
        model: as in `scored_logits`.
        batches: as there, at least one.
        order: which of all scored tokens, counted through the batches, stands at each place.
        before: called with the number of each batch before its pass.
    """
    head = _plain_head(model)
    states: list[Tensor] = []
    logits: list[Tensor] = []

    def put_off(mine: Tensor) -> Tensor:
        states.append(mine)
        return torch.cat(states)[order] if len(states) == len(batches) else mine[:0]

    for number, batch in enumerate(batches):
        before(number)
        if head is None:
            logits.append(scored_logits(model, batch))
            continue
        with _reading(head, batch["labels"][:, 1:] != -100, put_off):
            logits.append(completion_output(model, batch).logits[0])
    return logits[-1] if head is not None else torch.cat(logits)[order]


def _plain_head(model: nn.Module) -> nn.Module | None:
    """The head, if its input may be cut: nobody else watches it, and no adapter sits on it."""
    head: Any = innermost(model).get_output_embeddings()
    watched = type(head) is not nn.Linear or head._forward_hooks or head._forward_pre_hooks
    return None if watched or not takes(model, "logits_to_keep") else head


@contextmanager
def _reading(
    head: nn.Module, scored: Bool[Tensor, "batch token"], instead: Callable[[Tensor], Tensor] = lambda states: states
) -> Iterator[None]:
    """Let the head read what predicts the scored tokens, or what is to be read `instead` of it, as one long row."""

    def cut(_head: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        states = inputs[0][:, :-1]
        return instead(states[scored[:, scored.shape[1] - states.shape[1] :]])[None]

    handle = head.register_forward_pre_hook(cut)
    try:
        yield
    finally:
        handle.remove()
