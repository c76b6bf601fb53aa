"""Experts that share a tensor: their gradients are those of single examples, wherever the tokens were routed."""

from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from unlora.importance.accumulate import accumulate
from unlora.importance.contrast_map import SKETCH_COLUMNS, estimate_contrast
from unlora.importance.estimate import estimate_importance
from unlora.importance.hooks import measuring
from unlora.importance.importance_map import FullImportance, MarginalImportance
from unlora.importance.sketch import GradientSketch
from unlora.low_rank import contrast_directions
from unlora.models.experts import ExpertModule, find_experts
from unlora_research.model_map.configurations import tiny_configuration

KINDS = (
    "qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "nemotron_h", "dbrx", "jetmoe", "llama4_text", "longcat_flash",
    "inkling_text",
)  # fmt: skip
"""Halved and interleaved gates, both orders of the axes, biases, a router that scales, experts without a gate, stacks
in two dimensions, tokens sorted by expert, every token through every expert, experts that hand a token on as it is, and
experts that share a router with dense ones."""


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
            piece = gradient.chunk(expert.count)[expert.index].reshape(expert_shape(expert))
            found[name].append(piece.T.clone() if expert.transposed else piece.clone())
    model.requires_grad_(False)
    return {name: torch.stack(gradients) for name, gradients in found.items()}


def expert_shape(expert: ExpertModule) -> tuple[int, int]:
    """As the tensor has it."""
    return (expert.d_in, expert.d_out) if expert.transposed else (expert.d_out, expert.d_in)


class Kept:
    """Keeps every sample's gradient."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def update(self, inputs: Tensor, output_gradients: Tensor) -> None:
        self.gradients += [d.T @ x for x, d in zip(inputs, output_gradients, strict=True)]

    def skip(self, sample_count: int) -> None:
        raise AssertionError(sample_count)

    def combine(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_experts_are_those_of_single_examples(kind: str, checkpointing: bool):
    model = lively(kind)
    experts = find_experts(model)
    expected, kept = one_by_one(model, experts), {name: Kept() for name in experts}
    forwards = {name: dict(vars(expert.module)).get("forward") for name, expert in experts.items()}
    if checkpointing and kind == "jetmoe":
        pytest.skip("transformers gives JetMoE no checkpointing")
    if checkpointing:
        model.gradient_checkpointing_enable()
    with measuring(model):
        counts = accumulate(model, experts, [batch()], kept, set_name="forget")
    assert counts.example_count == 5
    assert len(experts) >= 8
    for name in experts:
        torch.testing.assert_close(torch.stack(kept[name].gradients), expected[name], atol=1e-6, rtol=1e-5)
        assert vars(experts[name].module).get("forward") is forwards[name]


def close(found: Tensor, expected: Tensor, name: str) -> None:
    """To 1e-5 of the largest."""
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max()), name


@pytest.mark.parametrize("kind", KINDS)
def test_importance_of_an_expert_is_what_the_gradients_of_single_examples_say(kind: str):
    model = lively(kind)
    experts = find_experts(model)
    expected, given = one_by_one(model, experts), ([batch()], [batch()])
    choice: dict[str, Any] = {"statistic": "second_moment", "target_modules": list(experts)}
    marginals = estimate_importance(model, *given, space="marginals", **choice)
    whole = estimate_importance(model, *given, space="full_weights", **choice)
    for name, gradients in expected.items():
        squares, record = gradients.square(), marginals[name].forget
        assert isinstance(record, MarginalImportance)
        close(record.rows, squares.sum(dim=2).mean(dim=0), name)
        close(record.columns, squares.sum(dim=1).mean(dim=0), name)
        every = whole[name].forget
        assert isinstance(every, FullImportance)
        close(every.values, squares.mean(dim=0), name)


@pytest.mark.parametrize("kind", KINDS)
def test_contrast_of_an_expert_is_what_the_gradients_of_single_examples_say(kind: str):
    """A gradient formed whole, taken row by row, goes through the same sketch as tokens do."""
    model = lively(kind)
    experts = find_experts(model)
    gradients = one_by_one(model, experts)
    found = estimate_contrast(model, [batch()], [batch()], target_modules=list(experts), rank=2)
    for name, expert in experts.items():
        if not gradients[name].any():
            continue
        sketches = []
        for which in ("forget", "retain"):
            shape, device = (expert.d_out, expert.d_in), torch.device("cpu")
            sketch = GradientSketch(f"{name}/{which}", shape, columns=SKETCH_COLUMNS, seed=0, device=device)
            sketch.update(gradients[name], torch.eye(expert.d_out).expand(5, -1, -1))
            sketches.append(sketch)
        forget, retain = sketches
        for side in ("inputs", "outputs"):
            expected = contrast_directions(getattr(forget, side), getattr(retain, side), rank=2, damping=1.0)
            close(getattr(found[name], side[:-1] + "_eigenvalues"), expected.eigenvalues, name)
            shared = torch.linalg.svdvals(getattr(found[name], side).T.double() @ expected.basis.double())
            assert float(shared.min()) > 1 - 1e-5, name


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
