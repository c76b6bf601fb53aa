"""What a plan says, against a run that was made."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.commands import unlora
from tests.taught import Taught
from unlora.recipes.plan import make_plan
from unlora.recipes.settings import UnlearnSettings
from unlora.recipes.unlearn import unlearn


def settings_of(taught: Taught, importance: dict[str, Any], **adapter: Any) -> UnlearnSettings:
    values = {
        "model": {"name": str(taught.target), "device": "cpu"},
        "data": {"forget": str(taught.forget), "retain": str(taught.retain)},
        "importance": importance,
        "adapter": {"rank": 4, "alpha": 8, **adapter},
        "training": {"epochs": 3, "batch_size": 2},
        "evaluation": {"skip": True},
    }
    return UnlearnSettings.from_mapping(values, where="test")


def parameters_of(file: Path) -> int:
    return sum(tensor.numel() for tensor in load_file(file).values())


@pytest.mark.parametrize(("start", "freeze_a"), [("importance", False), ("contrast_inputs", True), ("plain", False)])
def test_plan_agrees_with_the_run(taught: Taught, tmp_path: Path, start: str, freeze_a: bool):
    settings = settings_of(taught, {"initialisation": start}, freeze_a=freeze_a)
    plan = make_plan(settings)
    unlearn(settings, tmp_path / "run")
    assert plan.steps == len((tmp_path / "run" / "train_log.jsonl").read_text().splitlines())
    assert plan.adapter_parameters == parameters_of(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert plan.parameters == parameters_of(taught.target / "model.safetensors")
    assert (plan.forget_examples, plan.retain_examples) == (4, 8)


def test_gradients_and_adamw_take_twelve_bytes_a_parameter(taught: Taught):
    plan = make_plan(settings_of(taught, {"initialisation": "plain"}))
    weight = torch.nn.Parameter(torch.ones(plan.trained_parameters))
    optimiser = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimiser.step()
    moments = [value for value in optimiser.state[weight].values() if value.numel() > 1]
    assert weight.grad is not None
    assert plan.training_memory["gradients and AdamW"] == weight.grad.nbytes + sum(value.nbytes for value in moments)


def test_statistics_of_full_weights_are_two_copies_of_the_layers(taught: Taught):
    plan = make_plan(settings_of(taught, {"statistic": "second_moment", "space": "full_weights"}))
    layers = {name: one for name, one in load_file(taught.target / "model.safetensors").items() if "_proj" in name}
    assert plan.importance_memory["statistics"] == 2 * 4 * sum(tensor.numel() for tensor in layers.values())
    assert make_plan(settings_of(taught, {"initialisation": "plain"})).importance_memory == {}


def test_command(taught: Taught):
    sets = ("--forget", taught.forget, "--retain", taught.retain)
    result = unlora("plan", "--model", taught.target, *sets)
    assert result.exit_code == 0, result.output
    assert "fits " in result.stdout
    result = unlora("plan", "--model", taught.target, *sets, "--memory", "0.0001")
    assert "does not fit" in result.stdout
    assert "--set training.gradient_checkpointing=true" in result.stdout
    result = unlora("plan", "--model", taught.target, *sets, "--json")
    assert json.loads(result.stdout)["peak"] > 0
    result = unlora("plan", "--model", "./none", *sets)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
