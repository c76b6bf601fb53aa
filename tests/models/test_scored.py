"""Logits of the scored tokens alone, against those of every position."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel

from tests.tiny import ARCHITECTURES, build_tiny_model
from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.models.scored import scored_logits, scored_logits_in_passes, scored_output

EXAMPLES = [
    TokenisedExample((5, 9, 3, 7, 2, 11, 4), 2, False, ""),
    TokenisedExample((4, 8, 6), 1, False, ""),
    TokenisedExample((12, 3, 9, 8, 5), 4, False, ""),
]
"""Five, two and one scored tokens, which begin at different places."""
PREDICTED_AT = [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 0), (1, 1), (2, 3)]


class Old(LlamaForCausalLM):
    """A class of before `logits_to_keep`."""

    def forward(self, input_ids: Any, attention_mask: Tensor, use_cache: bool = False) -> Any:  # type: ignore[override]
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)


def both_ways(model: PreTrainedModel) -> tuple[tuple[int, ...], list[Tensor], list[Tensor]]:
    """The shape of what the model gave, then logits and gradient in the embeddings: ours, and of all positions."""
    batch = collate(EXAMPLES, 1)
    weights = torch.linspace(-1, 1, len(PREDICTED_AT))[:, None]
    leaves: list[Tensor] = []

    def gradient(logits: Tensor) -> list[Tensor]:
        return [logits.detach(), torch.autograd.grad((logits.log_softmax(-1) * weights).sum(), leaves[-1])[0]]

    with model.get_input_embeddings().register_forward_hook(
        lambda *parts: leaves.append(parts[2].requires_grad_(True)),
    ):
        logits, output = scored_output(model, batch)
        ours = gradient(logits)
        whole = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        return tuple(output.logits.shape), ours, gradient(torch.stack([whole[place] for place in PREDICTED_AT]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_head_reads_what_predicts_scored_tokens_and_nothing_else(architecture: Any):
    model = build_tiny_model(architecture).requires_grad_(False)
    shape, ours, plain = both_ways(model)
    assert shape[:2] == (1, 8)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["watched", "adapted", "takes no places"])
def test_head_that_may_not_be_cut_gives_the_same(case: str):
    """Statistics and adapters want to know which row is which example's; and a class may count on whole rows."""
    model: Any = build_tiny_model("llama").requires_grad_(False)
    if case == "watched":
        model.get_output_embeddings().register_forward_hook(lambda *_parts: None)
    elif case == "adapted":
        get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    else:
        model = Old(model.config).requires_grad_(False).eval()
    shape, ours, plain = both_ways(model)
    assert shape[0] == 3
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_head_reads_several_passes_at_once_in_the_order_asked_for(architecture: Any, watched: bool):
    """Logits and gradient are those of a pass and a head each, put in order afterwards (as a watched head does it)."""
    model: Any = build_tiny_model(architecture).requires_grad_(False)
    leaves: list[Tensor] = []
    model.get_input_embeddings().register_forward_hook(lambda *parts: leaves.append(parts[2].requires_grad_(True)))
    told: list[int] = []
    if watched:
        model.get_output_embeddings().register_forward_hook(lambda *_parts: None)
    batches = [collate(EXAMPLES[:1], 1), collate(EXAMPLES[1:], 1)]
    order = torch.tensor([6, 0, 7, 2, 1, 5, 4, 3])
    weights = torch.linspace(-1, 1, len(order))[:, None]
    logits = scored_logits_in_passes(model, batches, order, told.append)
    together = torch.autograd.grad((logits.log_softmax(-1) * weights).sum(), leaves)
    leaves.clear()
    plain = torch.cat([scored_logits(model, batch) for batch in batches])[order]
    apart = torch.autograd.grad((plain.log_softmax(-1) * weights).sum(), leaves)
    assert told == [0, 1]
    torch.testing.assert_close(logits, plain, rtol=1e-5, atol=1e-6)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
