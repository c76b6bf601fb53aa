"""Experts that share a tensor: their gradients are those of single examples, wherever the tokens were routed."""

from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from unlora.importance.accumulate import accumulate
from unlora.importance.contrast_map import estimate_contrast
from unlora.importance.estimate import estimate_importance
from unlora.importance.hooks import measuring
from unlora.models.experts import ExpertModule, find_experts
from unlora_research.model_map.configurations import tiny_configuration

KINDS = ("qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "nemotron_h")
"""Halved and interleaved gates, both orders of the axes, biases, a router that scales, and experts without a gate."""


def lively(kind: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(tiny_configuration(kind)).float().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
    return model


def batch() -> dict[str, Tensor]:
    """Five examples of two lengths, prompts not scored."""
    ids = torch.randint(2, 64, (5, 9), generator=torch.Generator().manual_seed(0))
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :3] = -100
    labels[2, 6:] = -100
    mask[2, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def one_by_one(model: PreTrainedModel, experts: dict[str, ExpertModule]) -> dict[str, Tensor]:
    """The gradient of every example's mean loss by one ordinary backward pass each, sliced by expert."""
    found, examples = defaultdict(list), batch()
    model.requires_grad_(True)
    for row in range(5):
        model.zero_grad()
        one = {key: value[row : row + 1] for key, value in examples.items()}
        logits = model(input_ids=one["input_ids"], attention_mask=one["attention_mask"]).logits
        torch.nn.functional.cross_entropy(logits[0, :-1], one["labels"][0, 1:]).backward()
        for name, expert in experts.items():
            gradient = expert.module.get_parameter(name.rpartition(".")[2]).grad
            assert gradient is not None
            piece = gradient[expert.index]
            found[name].append(piece.T.clone() if expert.transposed else piece.clone())
    model.requires_grad_(False)
    return {name: torch.stack(gradients) for name, gradients in found.items()}


class Kept:
    """Keeps every sample's gradient."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def update(self, inputs: Tensor, output_gradients: Tensor) -> None:
        self.gradients += [d.T @ x for x, d in zip(inputs, output_gradients, strict=True)]

    def skip(self, sample_count: int) -> None:
        raise AssertionError(sample_count)

    combine = skip


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_experts_are_those_of_single_examples(kind: str, checkpointing: bool):
    model = lively(kind)
    experts = find_experts(model)
    expected, kept = one_by_one(model, experts), {name: Kept() for name in experts}
    forwards = {name: dict(vars(expert.module)).get("forward") for name, expert in experts.items()}
    if checkpointing:
        model.gradient_checkpointing_enable()
    with measuring(model):
        counts = accumulate(model, experts, [batch()], kept, set_name="forget")
    assert counts.example_count == 5
    assert len(experts) >= 8
    for name in experts:
        torch.testing.assert_close(torch.stack(kept[name].gradients), expected[name], atol=1e-6, rtol=1e-5)
        assert vars(experts[name].module).get("forward") is forwards[name]


@pytest.mark.parametrize("kind", ["gpt_oss", "deepseek_v3"])
def test_importance_and_contrast_of_an_expert_are_what_the_gradients_say(kind: str):
    model = lively(kind)
    experts = find_experts(model)
    expected = one_by_one(model, experts)
    importance = estimate_importance(
        model, [batch()], [batch()], statistic="second_moment", space="marginals", target_modules=list(experts)
    )
    contrast = estimate_contrast(
        model, [batch()], None, target_modules=list(experts), rank=2, sketch_columns=4096, inputs_only=True
    )
    for name in list(experts)[:4]:
        gradients = expected[name]
        record: Any = importance[name].forget
        torch.testing.assert_close(record.rows, gradients.square().sum(dim=2).mean(dim=0), atol=1e-7, rtol=1e-4)
        torch.testing.assert_close(record.columns, gradients.square().sum(dim=1).mean(dim=0), atol=1e-7, rtol=1e-4)
        energy = torch.einsum("boi,boj->ij", gradients, gradients)
        leading = torch.linalg.eigh(energy).eigenvectors[:, -1]
        assert abs(float(leading @ contrast[name].inputs[:, 0])) > 0.98


def test_expert_that_no_token_reaches_has_no_direction_and_the_others_keep_theirs():
    model = lively("gpt_oss")
    for name, parameter in model.named_parameters():
        if name.endswith("mlp.router.bias"):
            parameter.data[3] = -1e4
    experts = find_experts(model)
    expected = one_by_one(model, experts)
    unreached = {name for name in experts if not expected[name].any()}
    found = estimate_contrast(model, [batch()], [batch()], target_modules=list(experts), rank=2)
    assert {name for name in experts if not found[name].inputs.any()} == unreached
    assert unreached == {name for name in experts if ".experts.3." in name}
