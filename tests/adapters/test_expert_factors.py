"""Adapters of experts: anchored, frozen where they must be, and plain PEFT reads them again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from tests.importance.test_experts import batch, lively
from unlora.adapters import attach_plain_adapter, check_output_unmoved
from unlora.adapters.anchored import ADAPTER_NAME
from unlora.adapters.expert_factors import expert_layers
from unlora.adapters.export import load_trained_adapter, save_trained_adapter
from unlora.adapters.initial import InitialFactors
from unlora.adapters.strength import at_strength, set_strength
from unlora.models.choose import NOT_HELD, ROUTER, choose_target_modules
from unlora.starts.attach import attach_anchored_adapter
from unlora_research.model_map.by_hand import add_by_hand

KINDS = ("qwen3_moe", "gpt_oss", "nemotron_h", "jetmoe", "llama4_text")
TURNED = {"llama4_text"}
"""What PEFT calls A is B^T of their layers."""


def factors_of(targets: Any, *, zero_b: bool = False) -> dict[str, InitialFactors]:
    generator = torch.Generator().manual_seed(2)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    return {
        name: InitialFactors(drawn(one.d_out, 2) * (not zero_b), drawn(2, one.d_in), None, "test", None)
        for name, one in targets.items()
    }


def train(model: PeftModel, steps: int = 3) -> None:
    """Some steps of AdamW without decay."""
    learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learns, lr=1e-2, weight_decay=0)
    for _ in range(steps):
        optimiser.zero_grad()
        (-model(**batch()).loss).backward()
        optimiser.step()


@pytest.mark.parametrize("start", ["anchored", "frozen", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_peft_reads_what_was_trained(kind: str, start: str, tmp_path: Path):
    model = lively(kind)
    targets = choose_target_modules(model, rank=2, experts=True).targets
    if start == "plain":
        peft_model = attach_plain_adapter(model, targets, rank=2, alpha=4)
    else:
        peft_model = attach_anchored_adapter(
            model, rank=2, alpha=4, factors=factors_of(targets, zero_b=start == "frozen"), freeze_a=start == "frozen"
        )
    assert check_output_unmoved(peft_model, batch()).largest_difference < 1e-4
    before = {name: value.clone() for name, value in peft_model.state_dict().items()}
    train(peft_model)
    for tensor, wrapper in expert_layers(peft_model):
        held = {part: getattr(wrapper, part)[ADAPTER_NAME].get_parameter("weight") for part in ("lora_A", "lora_B")}
        was = {part: before[f"{_name(peft_model, wrapper)}.{part}.{ADAPTER_NAME}.weight"] for part in held}
        count = wrapper.num_experts
        stands, learns = ("lora_B", "lora_A") if kind in TURNED else ("lora_A", "lora_B")
        assert not torch.equal(held[learns], was[learns]), tensor
        if start == "frozen":
            assert torch.equal(held[stands], was[stands])
        if start == "anchored":
            assert torch.equal(held["lora_A"].view(count, 4, -1)[:, 2:], was["lora_A"].view(count, 4, -1)[:, 2:])
            assert torch.equal(held["lora_B"].view(-1, 4, count)[:, 2:], was["lora_B"].view(-1, 4, count)[:, 2:])
    save_trained_adapter(peft_model, tmp_path / "adapter", base_model="m", card="")
    inputs = {"input_ids": batch()["input_ids"]}
    with torch.no_grad():
        trained = peft_model.eval()(**inputs).logits
        again = PeftModel.from_pretrained(lively(kind), str(tmp_path / "adapter")).eval()(**inputs).logits
        ours = load_trained_adapter(lively(kind), tmp_path / "adapter").eval()(**inputs).logits
        by_hand = lively(kind)
        add_by_hand(by_hand, tmp_path / "adapter")
        expected = by_hand(**inputs).logits
        merged: Any = peft_model.merge_and_unload()
        together = merged(**inputs).logits
    for found in (trained, again, ours, together):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_experts_that_were_left_out_stay_as_they_are():
    model = lively("qwen3_moe")
    choice = choose_target_modules(model, exclude=["experts.[13].*"], rank=2, experts=True)
    assert choice.reach.experts == 8
    assert {one.why for one in choice.reach.left_out if "experts" in one.name} == {"excluded (adapter.exclude_modules)"}
    peft_model = attach_plain_adapter(model, choice.targets, rank=2, alpha=4)
    train(peft_model)
    for _, wrapper in expert_layers(peft_model):
        moved = wrapper.get_delta_weight(ADAPTER_NAME).flatten(1).abs().amax(dim=1)
        assert (moved > 0).tolist() == [True, False, True, False]


def test_strength_is_of_the_experts_too():
    model = lively("gpt_oss")
    targets = {
        name: one
        for name, one in choose_target_modules(model, rank=2, experts=True).targets.items()
        if ".experts." in name
    }
    peft_model = attach_anchored_adapter(model, rank=2, alpha=4, factors=factors_of(targets))
    train(peft_model)
    inputs = {"input_ids": batch()["input_ids"]}
    with torch.no_grad():
        whole = peft_model.eval()(**inputs).logits
        with at_strength(peft_model, 0.0):
            nothing = peft_model(**inputs).logits
        with at_strength(peft_model, 0.5):
            half = peft_model(**inputs).logits
        with peft_model.disable_adapter():
            target = peft_model(**inputs).logits
        set_strength(peft_model, 0.5)
        set_half = peft_model(**inputs).logits
    torch.testing.assert_close(nothing, target, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(half, set_half, atol=1e-5, rtol=1e-5)
    assert float((half - whole).abs().max()) > 1e-2


def _name(model: PeftModel, module: Any) -> str:
    return next(name for name, one in model.named_modules() if one is module)


def test_a_class_that_reads_past_peft_s_wrapper_gets_no_adapter_on_its_experts():
    """DBRX reads `mlp.w1` from outside `mlp`, where PEFT's wrapper has no such tensor."""
    model = lively("dbrx")
    choice = choose_target_modules(model, rank=2, experts=True)
    assert choice.reach.experts == 0
    assert {one.why for one in choice.reach.left_out} == {NOT_HELD, ROUTER}
    assert "of experts, which PEFT does not hold (ffn.experts.mlp.w1" in choice.reach.sentence()
    config = LoraConfig(r=2, target_modules=["out_proj"], target_parameters=["experts.mlp.w1"], task_type="CAUSAL_LM")
    with pytest.raises(AttributeError, match="'ParamWrapper' object has no attribute"):
        get_peft_model(model, config)(input_ids=batch()["input_ids"])
