"""The parts of a batch: forget examples, retain examples and refusals, read together in one forward pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unlora import processes
from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError
from unlora.losses import NOT_SCORED, HiddenStates, Need, Objective, Predictions
from unlora.models.scored import scored_logits_in_passes, scored_output
from unlora.models.wrapping import CausalModel, unwrap
from unlora.shapes import TokenIds

Part = Literal["forget", "retain", "refusal"]


READ = ("input_ids", "attention_mask", "labels")

MOST_GROUPS = 4
"""Forward passes for one batch: with four, 16 pairs of TOFU's questions are 8 % padding, with one 55 %."""

BlocksOfParts = Mapping[Part, int | None]
"""The block behind which the hidden states of a part are read; None for the last of the first quarter."""


@dataclass(frozen=True)
class BatchPlan:
    """What is read of a batch, by the policy and by the reference."""

    parts: tuple[Part, ...]
    """What the policy reads, in the order of the batch; the first is what the forget term predicts."""
    blocks: BlocksOfParts
    """Whose hidden states the policy keeps."""
    compared: tuple[Part, ...]
    """What the reference reads as well, batch by batch."""
    compared_blocks: BlocksOfParts
    """Whose hidden states the reference keeps."""
    whole: tuple[Part, ...] = ()
    """Whose prompts are scored too."""

    @classmethod
    def of(cls, objective: Objective) -> "BatchPlan":
        """Find out what the terms of an objective need."""
        forget, retain = objective.forget_term, objective.retain_term
        first: Part = "refusal" if forget.completion == "refusal" else "forget"
        needs: dict[Part, frozenset[Need]] = {first: forget.needs}
        blocks: dict[Part, int | None] = {first: forget.block}
        if retain is not None:
            needs["retain"] = retain.needs
            blocks["retain"] = retain.block if retain.block is not None else forget.block
        further: tuple[Part, ...] = ("refusal",) if "refusal" in forget.needs and first != "refusal" else ()
        compared: tuple[Part, ...] = tuple(
            part for part in needs if needs[part] & {"reference", "reference_hidden_states"}
        )
        return cls(
            parts=(*needs, *further),
            blocks={part: blocks[part] for part in needs if "hidden_states" in needs[part]},
            compared=compared,
            compared_blocks={part: blocks[part] for part in compared if "reference_hidden_states" in needs[part]},
            whole=("retain",) if retain is not None and retain.prompts else (),
        )

    def refuse_unless_fits(self, model: CausalModel) -> None:
        """Refuse a model without the blocks that are read.

        Raises:
            InputError: it has fewer.
        """
        for block in {*self.blocks.values(), *self.compared_blocks.values()}:
            block_index(block, unwrap(model).config.get_text_config().num_hidden_layers)


class ForgetRetainCollator:
    """Makes one right-padded batch of all parts, so that one forward pass serves them.

    Of several processes each takes its share of the pairs. What it computes on them counts `weight` times: then the
    mean over processes is the mean over the pairs, whether or not they can be shared evenly. A process for which none
    is left reads the first pair, with weight 0, because all must take part in every pass.
    """

    def __init__(self, pad_token_id: int, parts: Sequence[Part], *, whole: Sequence[Part] = ()) -> None:
        """Fix the parts, in the order of a `BatchPlan`; every pair must have them. Prompts of `whole` are scored."""
        self._pad_token_id = pad_token_id
        self._parts = parts
        self._whole = whole

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """One part after the other, each with one row a pair; `forget_index` has one entry for each pair."""
        mine = processes.share(pairs)
        weight = len(mine) * processes.count() / len(pairs)
        pairs = mine or pairs[:1]
        examples = [self._scored(part, pair[part]) for part in self._parts for pair in pairs]
        batch = collate(examples, self._pad_token_id)
        index = torch.tensor([pair["forget_index"] for pair in pairs])
        return {**batch, "forget_index": index, "weight": torch.tensor(weight)}

    def _scored(self, part: Part, example: TokenisedExample) -> TokenisedExample:
        """Nothing predicts the first token, so that the shortest prompt is one token long."""
        return replace(example, prompt_length=1) if part in self._whole else example


@dataclass(frozen=True)
class PartReading:
    """What one forward pass says about the examples of one part."""

    predictions: Predictions
    hidden_states: HiddenStates | None
    """The outputs of one block from which the scored tokens are predicted; None unless asked for."""


BeforePass = Callable[[Int[Tensor, " row"], Mapping[str, Tensor]], None]
"""Told which rows of the batch the next forward pass reads, and what of them."""


def read_parts(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    parts: Sequence[Part],
    wanted: Sequence[Part],
    blocks: BlocksOfParts,
    *,
    before: BeforePass | None = None,
) -> dict[Part, PartReading]:
    """Read some parts of a batch together; on a processor rows of like length at a time, so that little is padding.

    Args:
        model: with its adapters on or off.
        batch: what `ForgetRetainCollator` made.
        parts: those of the batch.
        wanted: those to read; the rows of others are left out.
        blocks: whose hidden states are kept, and behind which block.
        before: called before every forward pass.

    Raises:
        InputError: the model has fewer blocks.
    """
    count = batch["input_ids"].shape[0] // len(parts)
    # A layer that is read again for the backward pass must find what `before` set for its own pass: there is one then.
    whole = bool(blocks) or any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    # Groups are those of all parts, whichever are wanted: what policy and reference read alike agrees to the bit.
    groups = [] if whole else groups_of_like_length(batch["attention_mask"])
    places = torch.cat([torch.arange(count) + parts.index(part) * count for part in wanted])
    labels = batch["labels"][places.to(batch["labels"].device)]
    hidden_states: Sequence[Tensor] = ()
    if len(groups) > 1:
        logits = _read_groups(model, [_cut(batch, rows, places) for rows in groups], before)
    else:
        if tuple(wanted) != tuple(parts):
            batch = {key: batch[key][places.to(batch[key].device)] for key in READ}
        if before is not None:
            before(torch.arange(len(batch["input_ids"])), batch)
        logits, output = scored_output(model, batch, **({"output_hidden_states": True} if blocks else {}))
        hidden_states = output.hidden_states if blocks else ()
    return _readings(wanted, logits, labels, hidden_states, blocks)


def _readings(
    wanted: Sequence[Part], logits: Tensor, labels: Tensor, hidden_states: Sequence[Tensor], blocks: BlocksOfParts
) -> dict[Part, PartReading]:
    """Tell the parts apart, each of which has as many rows of the labels."""
    count = len(labels) // len(wanted)
    scored = labels[:, 1:] != NOT_SCORED
    sizes = [int(rows.sum()) for rows in scored.split(count)]
    readings = {}
    for place, (part, mine) in enumerate(zip(wanted, logits.split(sizes), strict=True)):
        rows = slice(place * count, (place + 1) * count)
        states = None
        if part in blocks:
            outputs = hidden_states[block_index(blocks[part], len(hidden_states) - 1) + 1]
            states = outputs[rows, :-1][scored[rows]]
        readings[part] = PartReading(Predictions.from_scored(mine, labels[rows]), states)
    return readings


def groups_of_like_length(mask: TokenIds) -> list[Tensor]:
    """Rows by length, cut into at most `MOST_GROUPS` groups so that together they hold the fewest padded tokens.

    One group on an accelerator, where a pass costs more than its tokens, among several processes, which must take as
    many passes as one another, and where grouping would spare less than a twentieth.

    Args:
        mask: (row, token), 1 on the real tokens of right-padded rows.
    """
    if mask.device.type != "cpu" or processes.count() > 1:
        return [torch.arange(len(mask), device=mask.device)]  # Lengths would have to come from the device first.
    rows = mask.sum(dim=1).sort(stable=True)
    lengths = rows.values.tolist()
    ends = _cheapest_ends(lengths)
    cost = sum((end - start) * lengths[end - 1] for start, end in pairwise((0, *ends)))
    if cost > 0.95 * len(lengths) * lengths[-1]:
        return [rows.indices]
    return [rows.indices[start:end] for start, end in pairwise((0, *ends))]


def _cheapest_ends(lengths: Sequence[int]) -> tuple[int, ...]:
    """Where groups of sorted rows end so that the padded tokens are fewest (dynamic programming over the ends)."""
    ends = range(1, len(lengths) + 1)
    best = {end: (end * lengths[end - 1], (end,)) for end in ends}
    for _ in range(MOST_GROUPS - 1):
        cut = {
            end: [(best[at][0] + (end - at) * lengths[end - 1], (*best[at][1], end)) for at in range(1, end)]
            for end in ends
        }
        best = {end: min([best[end], *cut[end]]) for end in ends}
    return best[len(lengths)][1]


class Group(NamedTuple):
    """Rows that are read in one forward pass."""

    places: Int[Tensor, " row"]
    """Among the rows that are wanted."""
    batch: dict[str, Tensor]
    """Cut to the longest row of the group, whether that is wanted or not."""


def _cut(batch: Mapping[str, Tensor], rows: Tensor, wanted: Tensor) -> Group:
    longest = int(batch["attention_mask"][rows].sum(dim=1).max())
    places = torch.isin(wanted, rows).nonzero().flatten()
    return Group(places, {key: batch[key][wanted[places], :longest] for key in READ})


def _read_groups(model: nn.Module, groups: Sequence[Group], before: BeforePass | None) -> Float[Tensor, "scored vocab"]:
    """Logits of the scored tokens of the wanted rows, in these rows' order; each group takes a pass of its own."""
    groups = [group for group in groups if len(group.places)]
    counts = [(group.batch["labels"][:, 1:] != NOT_SCORED).sum(dim=1) for group in groups]
    rows = [group.places.repeat_interleave(count) for group, count in zip(groups, counts, strict=True)]

    def told(number: int) -> None:
        if before is not None:
            before(groups[number].places, groups[number].batch)

    order = torch.cat(rows).argsort(stable=True)
    return scored_logits_in_passes(model, [group.batch for group in groups], order, told)


def block_index(block: int | None, count: int) -> int:
    """The block that is meant, counted from 0; None is the last of the first quarter, such as 7 of 32.

    Raises:
        InputError: the model has fewer blocks.
    """
    if block is None:
        return max(count // 4, 1) - 1
    if block >= count:
        raise InputError(f"block {block}: the model has {count} blocks, 0 to {count - 1}.")
    return block
