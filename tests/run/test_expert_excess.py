"""`adapter.expert_excess`: experts that the forget set does not use more than the retain set are left out and named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.importance.test_experts import lively
from tests.tiny import build_tiny_tokenizer
from unlora.adapters.expert_factors import expert_layers
from unlora.adapters.export import load_trained_adapter
from unlora.errors import InputError
from unlora.models.choose import LITTLE_USED
from unlora.models.load import load_model
from unlora.recipes.plan.batches import read_run_data
from unlora.recipes.plan.cost import BEFORE_ROUTING, make_plan
from unlora.recipes.unlearn import unlearn
from unlora.run.settings import UnlearnSettings

QUESTIONS = [("Where was Ada born?", "In Turin."), ("Who wrote it?", "Bo did."), ("When?", "In the year 1953.")]


def settings(place: Path, kind: str = "qwen3_moe", **changes: Any) -> UnlearnSettings:
    if not (place / "model").is_dir():
        lively(kind).save_pretrained(place / "model")
        build_tiny_tokenizer().save_pretrained(place / "model")
        for name, rows in (("forget", QUESTIONS[:1]), ("retain", QUESTIONS[1:])):
            lines = [json.dumps({"question": question, "answer": answer}) for question, answer in rows * 2]
            (place / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return UnlearnSettings.from_mapping(
        {
            "model": {"name": str(place / "model"), "device": "cpu", "dtype": "float32"},
            "data": {
                "forget": str(place / "forget.jsonl"), "retain": str(place / "retain.jsonl"), "template": "plain",
                **changes.pop("data", {}),
            },
            "start": {"kind": "contrast_inputs"},
            "adapter": {"rank": 2, "alpha": 4, **changes},
            "training": {"epochs": 1, "batch_size": 2},
            "evaluation": {"skip": True},
        },
        where="test",
    )  # fmt: skip


def test_only_the_experts_that_are_used_more_get_an_adapter(tmp_path: Path):
    chosen = settings(tmp_path, expert_excess=0.25)
    unlearn(chosen, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    left_out = {one["name"]: one["tensors"] for one in record["reach"]["left_out"] if one["why"] == LITTLE_USED}
    assert set(left_out) == {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}
    assert 0 < record["reach"]["experts"] == 16 - sum(left_out.values())
    target = load_model(str(tmp_path / "model"), device=torch.device("cpu")).model
    moved = 0
    for _, wrapper in expert_layers(load_trained_adapter(target, tmp_path / "run" / "adapter")):
        moved += int((wrapper.get_delta_weight("default").flatten(1).abs().amax(dim=1) > 0).sum())
    assert 0 < moved <= record["reach"]["experts"]


def test_a_plan_says_that_it_does_not_see_the_routing(tmp_path: Path):
    chosen = settings(tmp_path, expert_excess=0.25)
    assert BEFORE_ROUTING in make_plan(chosen, read_run_data(chosen)).reach.sentence()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert_excess": 100.0, "exclude_modules": ["layers.1.mlp.*"]}, "leaves no expert; the one that the forget"),
        ({"expert_excess": 0.1, "exclude_modules": ["experts.*"]}, "no expert of this model is among"),
    ],
)
def test_what_leaves_no_expert_is_refused(changes: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        unlearn(settings(tmp_path, **changes), tmp_path / "run")


@pytest.mark.parametrize("value", [-0.1, 101.0, "many"])
def test_range(value: Any, tmp_path: Path):
    with pytest.raises(InputError, match=r"adapter\.expert_excess"):
        settings(tmp_path, expert_excess=value)
