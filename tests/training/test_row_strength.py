"""Two strengths in one pass: against two passes at one strength each, and what training with them leaves."""

from pathlib import Path

import pytest
import torch

from tests.taught import Taught
from tests.training.runs import DEFAULTS, anchored, pairs
from tests.training.test_shared_shift import moved
from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.adapters.strength import at_strength
from unlora.data.collate import collate
from unlora.errors import InputError
from unlora.losses import Objective
from unlora.training import UnlearnTrainer, training_arguments
from unlora.training.row_strength import RowStrength, strengths


def logits(model, batch):
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def test_rows_at_two_strengths_are_those_of_two_passes(taught: Taught):
    model, rows = moved(taught), RowStrength()
    forget, retain = taught.tokens(taught.forget)[:3], taught.tokens(taught.retain)[:3]
    batch = collate([*forget, *retain], 1)
    whole = logits(model, batch)
    with at_strength(model, 0.4):
        part = logits(model, batch)
    with rows.installed(model):
        rows.set(strengths(("forget", "retain"), 3, 0.4), batch["input_ids"].shape[1])
        found = logits(model.train(), batch)
        assert torch.equal(logits(model.eval(), batch), whole)
    assert (whole - part).abs().max() > 1e-2
    torch.testing.assert_close(found[:3], part[:3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[3:], whole[3:], atol=1e-5, rtol=1e-5)
    assert torch.equal(logits(model, batch), whole)


def trained(taught: Taught, folder: Path, forget_strength: float, **options: object):
    model = anchored(taught)
    objective = Objective("ihl", retain_weight=1.3, forget_strength=forget_strength)
    arguments = training_arguments(folder, **{**DEFAULTS, **options})
    UnlearnTrainer(model, arguments, objective=objective, train_dataset=pairs(taught, epochs=4), pad_token_id=1).train()
    return [factor_parameters(layer)[1].detach() for _, layer in lora_layers(model)]


def test_training_differs_and_checkpointing_changes_nothing(taught: Taught, tmp_path: Path):
    plain, half = trained(taught, tmp_path / "0", 1.0), trained(taught, tmp_path / "1", 0.5)
    assert max((one - other).abs().max().item() for one, other in zip(plain, half, strict=True)) > 1e-3
    again = trained(taught, tmp_path / "2", 0.5, gradient_checkpointing=True)
    for one, other in zip(half, again, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.5, float("nan")])
def test_a_strength_that_is_none_is_refused(taught: Taught, value: float):
    with pytest.raises(InputError, match="forget_strength"):
        taught.settings(objective={"forget_strength": value})
    with pytest.raises(InputError, match="forget_strength"):
        Objective("ihl", forget_strength=value)


def test_rows_that_a_layer_does_not_keep_apart_are_named(taught: Taught):
    model, rows = moved(taught), RowStrength()
    batch = collate(taught.tokens(taught.forget)[:3], 1)
    with rows.installed(model):
        rows.set(strengths(("forget", "retain"), 2, 0.5), batch["input_ids"].shape[1])
        with pytest.raises(InputError, match=r"layer '.*q_proj' does not keep the examples"):
            logits(model.train(), batch)
