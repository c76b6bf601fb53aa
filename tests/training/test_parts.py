"""What is read of a batch: its parts, hidden states, and no more than the objective needs."""

from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from torch import nn

from tests.taught import PAD, Taught
from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model
from tests.training.runs import anchored, pairs
from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError
from unlora.losses import Objective, Predictions
from unlora.starts.attach import attach_anchored_adapter
from unlora.training.parts import (
    MOST_GROUPS,
    BatchPlan,
    ForgetRetainCollator,
    Part,
    block_index,
    groups_of_like_length,
    read_parts,
)
from unlora.training.reference import Reference

FORGET, RETAIN, REFUSAL = "forget", "retain", "refusal"


@pytest.mark.parametrize(
    ("objective", "plan"),
    [
        (Objective("ga", retain=None), BatchPlan((FORGET,), {}, (), {})),
        (Objective("npo"), BatchPlan((FORGET, RETAIN), {}, (), {})),
        (Objective("dpo"), BatchPlan((FORGET, RETAIN, REFUSAL), {}, (), {})),
        (Objective("idk"), BatchPlan((REFUSAL, RETAIN), {}, (), {})),
        (Objective("undial", retain=None), BatchPlan((FORGET,), {}, (FORGET,), {})),
        (Objective("undial", retain="kl"), BatchPlan((FORGET, RETAIN), {}, (FORGET, RETAIN), {})),
        (
            Objective("ihl", retain="kl", retain_parameters={"prompts": True}),
            BatchPlan((FORGET, RETAIN), {}, (RETAIN,), {}, (RETAIN,)),
        ),
        (Objective("dpo", retain="kl"), BatchPlan((FORGET, RETAIN, REFUSAL), {}, (RETAIN,), {})),
        (Objective("rmu"), BatchPlan((FORGET, RETAIN), {FORGET: None}, (), {})),
        (
            Objective("rmu", retain="rmu", forget_parameters={"block": 3}),  # one block for both
            BatchPlan((FORGET, RETAIN), {FORGET: 3, RETAIN: 3}, (RETAIN,), {RETAIN: 3}),
        ),
        (
            Objective("ga", retain="rmu", retain_parameters={"block": 1}),
            BatchPlan((FORGET, RETAIN), {RETAIN: 1}, (RETAIN,), {RETAIN: 1}),
        ),
    ],
    ids=lambda value: f"{value.forget}-{value.retain}" if isinstance(value, Objective) else "",
)
def test_no_more_is_read_than_the_terms_need(objective: Objective, plan: BatchPlan):
    assert BatchPlan.of(objective) == plan


@pytest.mark.parametrize("parts", [("forget", "retain"), ("refusal",), ("forget", "retain", "refusal")])
def test_collator_puts_one_part_after_the_other(taught: Taught, parts: tuple[Part, ...]):
    stream = pairs(taught)
    items = [stream[index] for index in range(3)]
    batch = ForgetRetainCollator(PAD, parts)(items)
    assert batch["input_ids"].shape[0] == 3 * len(parts)
    assert batch["forget_index"].tolist() == [item["forget_index"] for item in items]
    for row, example in enumerate(item[part] for part in parts for item in items):
        assert example is not None
        length = len(example.input_ids)
        assert batch["input_ids"][row, :length].tolist() == list(example.input_ids)
        assert (batch["labels"][row] != -100).sum() == length - example.prompt_length


def test_prompts_are_scored_where_a_term_says_so_and_nowhere_else(taught: Taught):
    stream = pairs(taught)
    items = [stream[index] for index in range(3)]
    batch = ForgetRetainCollator(PAD, ("forget", "retain"), whole=("retain",))(items)
    scored = (batch["labels"] != -100).sum(dim=1).tolist()
    assert scored[:3] == [len(item["forget"].input_ids) - item["forget"].prompt_length for item in items]
    assert scored[3:] == [len(item["retain"].input_ids) - 1 for item in items if item["retain"] is not None]


@pytest.mark.parametrize(("count", "index"), [(32, 7), (30, 6), (12, 2), (4, 0), (2, 0), (1, 0)])
def test_default_block_ends_the_first_quarter(count: int, index: int):
    assert block_index(None, count) == index
    assert block_index(count - 1, count) == count - 1
    with pytest.raises(InputError, match=f"block {count}: the model has {count} blocks, 0 to {count - 1}"):
        block_index(count, count)


def outputs_of_blocks(model: nn.Module) -> dict[int, torch.Tensor]:
    """Catch what each block gives, in a dict that the next forward pass fills."""
    (blocks,) = [module for name, module in model.named_modules() if name.endswith((".layers", ".h"))]
    caught: dict[int, torch.Tensor] = {}

    def catch(number: int) -> Any:
        return lambda _module, _inputs, output: caught.update(
            {number: output[0] if isinstance(output, tuple) else output}
        )

    for number, block in enumerate(blocks.children()):
        block.register_forward_hook(catch(number))
    return caught


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hidden_states_are_a_blocks_outputs_before_each_scored_token(architecture: Architecture):
    """Compared with a hook on the block itself, adapter on; with it off they are the plain model's."""
    examples = [TokenisedExample((5, 9, 3, 7, 2), 2, False, ""), TokenisedExample((4, 8, 6), 1, False, "")]
    batch = collate(examples, PAD)
    plain = build_tiny_model(architecture, layers=4)
    plain_output = plain(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
    )
    model = attach_anchored_adapter(plain, rank=2, alpha=4.0).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_B" in name:
                parameter.add_(0.3)
    caught = outputs_of_blocks(model)
    for block in (0, 2):
        reading = read_parts(model, batch, ["forget"], ["forget"], {"forget": block})["forget"]
        rows = [caught[block][row, t] for row, t in ((0, 1), (0, 2), (0, 3), (1, 0), (1, 1))]
        torch.testing.assert_close(reading.hidden_states, torch.stack(rows))
        off = Reference(model, pad_token_id=PAD, batch_size=2).read(batch, ["forget"], ["forget"], {"forget": block})
        states = plain_output.hidden_states[block + 1]
        rows = [states[row, t] for row, t in ((0, 1), (0, 2), (0, 3), (1, 0), (1, 1))]
        torch.testing.assert_close(off["forget"].hidden_states, torch.stack(rows), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(reading.hidden_states, torch.stack(rows), atol=1e-2)  # pyright: ignore[reportArgumentType]


def test_reference_leaves_the_model_as_it_was(taught: Taught):
    model = anchored(taught).train()
    stream = pairs(taught)
    batch = ForgetRetainCollator(PAD, ("retain",))([stream[0], stream[1]])
    wanted = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    reading = Reference(model, pad_token_id=PAD, batch_size=2).read(batch, ["retain"], ["retain"], {"retain": 0})
    assert not reading["retain"].predictions.scored_logits.requires_grad
    assert model.training
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == wanted
    assert Reference(model, pad_token_id=PAD, batch_size=2).read(batch, ["retain"], [], {}) == {}


def test_rows_of_like_length_are_read_together_and_give_what_one_pass_gives(taught: Taught):
    """Logits, loss and gradients of a batch in groups are those of the batch in one padded pass."""
    model = anchored(taught)
    long = [replace(one, input_ids=(*one.input_ids, *one.input_ids[-9:])) for one in taught.tokens(taught.forget)]
    examples = [*taught.tokens(taught.forget)[:4], *long[:3], *taught.tokens(taught.retain)[:7]]
    batch = collate(examples, PAD)
    seen: list[list[int]] = []
    readings = read_parts(
        model,
        batch,
        ("forget", "retain"),
        ("forget", "retain"),
        {},
        before=lambda rows, _batch: seen.append(rows.tolist()),
    )
    assert len(seen) > 1
    assert sorted(row for rows in seen for row in rows) == list(range(14))
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    whole = Predictions.from_model_output(output.logits, batch["labels"])
    loss = -whole.mean_log_probs()
    found = -torch.cat([readings[part].predictions.mean_log_probs() for part in ("forget", "retain")])
    torch.testing.assert_close(found, loss, atol=1e-5, rtol=1e-5)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for one, other in zip(
        torch.autograd.grad(found.sum(), weights), torch.autograd.grad(loss.sum(), weights), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_groups_hold_the_fewest_padded_tokens():
    """Against every way to cut the sorted rows."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        lengths = torch.randint(1, 40, (int(torch.randint(1, 9, (1,), generator=generator)),), generator=generator)
        mask = (torch.arange(40) < lengths[:, None]).long()
        groups = groups_of_like_length(mask)
        assert sorted(row for rows in groups for row in rows.tolist()) == list(range(len(lengths)))
        cost = sum(len(rows) * int(lengths[rows].max()) for rows in groups)
        ordered = lengths.sort().values.tolist()
        cheapest = min(
            sum((end - start) * ordered[end - 1] for start, end in pairwise((0, *cuts, len(ordered))))
            for count in range(min(MOST_GROUPS, len(ordered)))
            for cuts in combinations(range(1, len(ordered)), count)
        )
        one = len(ordered) * ordered[-1]
        assert cost == (cheapest if cheapest <= 0.95 * one else one)
