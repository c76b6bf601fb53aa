"""Which experts of a mixture a set of texts uses: the share of its tokens that each expert of a layer is given."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from unlora.importance.accumulate import MODEL_INPUTS, Batch
from unlora.importance.expert_readers import Tapped, read_by_expert
from unlora.models.experts import ExpertModule
from unlora.models.forward import completion_logits
from unlora.models.wrapping import evaluating


@torch.no_grad()
def routing_shares(
    model: PreTrainedModel, experts: Mapping[str, ExpertModule], batches: Iterable[Batch]
) -> dict[str, float]:
    """Of all the places that a set's tokens take in the experts of a layer, the share that each expert has.

    Padding counts nowhere. Tokens of questions count as those of answers do: what is known of a name may be looked up
    where the name stands.

    Args:
        model: in any mode; it computes without dropout.
        experts: canonical name -> one matrix of an expert.
        batches: dict batches of input_ids, attention_mask, labels (batch, token).

    Returns:
        Canonical name -> share; those of one layer's experts add up to 1 where `experts` has them all.
    """
    counts, real = defaultdict[tuple[nn.Module, str, int], int](int), list[Tensor]()

    def count(reader: nn.Module, path: str, index: int, inputs: Tensor, tokens: Tensor, output: Tensor) -> Tensor:
        # Where every token goes through every expert, the inputs of those that were not sent there are zero.
        counts[reader, path, index] += int((real[0][tokens] & inputs.any(dim=1)).sum())
        return output

    readers = {expert.reader for expert in experts.values()}
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for reader in readers:
            stack.enter_context(read_by_expert(reader, Tapped(partial(count, reader), lambda _rows: None)))
        for batch in batches:
            given = {key: batch[key].to(model.device) for key in MODEL_INPUTS}
            real[:] = [given["attention_mask"].bool().flatten()]
            completion_logits(model, given)
    whole = defaultdict[tuple[nn.Module, str], int](int)
    for (reader, path, _), number in counts.items():
        whole[reader, path] += number
    return {
        name: counts[one.reader, one.path, one.index] / max(1, whole[one.reader, one.path])
        for name, one in experts.items()
    }


def used_more(forget: Mapping[str, float], retain: Mapping[str, float], excess: float) -> set[str]:
    """Names of the experts that the forget set sends at least (1 + excess) times the share of its tokens to.

    An expert that neither set reaches is none of them.
    """
    return {name for name, share in forget.items() if share > 0 and share >= (1 + excess) * retain[name]}
