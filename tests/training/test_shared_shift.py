"""Separation: what an adapter does to all forget examples alike, against hand computation and along training."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.taught import Taught
from tests.training.runs import DEFAULTS, anchored, pairs
from unlora.adapters.anchored import ADAPTER_NAME, lora_layers
from unlora.data.collate import collate
from unlora.errors import InputError
from unlora.losses import Objective
from unlora.training import UnlearnTrainer, training_arguments
from unlora.training.shared_shift import SharedShift, mean_shift, shared_share


def test_share_of_equal_orthogonal_and_opposite_shifts():
    scored = torch.tensor([[True, True, False]] * 4)
    equal = torch.ones(4, 3, 5)
    apart = torch.eye(4)[:, None, :].expand(4, 3, 4)
    opposite = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None].expand(4, 3, 2)
    for shifts, expected in ((equal, 1.0), (apart, 0.25), (opposite, 0.0), (torch.zeros(4, 3, 2), 0.0)):
        assert shared_share(mean_shift(shifts, scored)).item() == pytest.approx(expected, abs=1e-6)
    unscored = equal.clone()
    unscored[:, 2] = torch.randn(4, 5)  # A token that does not count is not looked at.
    assert shared_share(mean_shift(unscored, scored)).item() == pytest.approx(1.0, abs=1e-6)


def moved(taught: Taught):
    torch.manual_seed(0)
    model = anchored(taught)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            weight = layer.lora_B[ADAPTER_NAME].weight
            weight[:, : weight.shape[1] // 2] += 0.05 * torch.randn(weight.shape[0], weight.shape[1] // 2)
    return model


def test_share_in_a_model_is_that_of_every_example_read_alone(taught: Taught):
    model, watch = moved(taught), SharedShift()
    forget, retain = taught.tokens(taught.forget), taught.tokens(taught.retain)
    batch = collate([*forget, *retain[:4]], 1)
    parts = (
        torch.tensor([3, 0, 6, 2]),
        torch.tensor([row for row in range(len(batch["labels"])) if row not in (3, 0, 6, 2)]),
    )
    with torch.no_grad(), watch.watching(model):
        for rows in parts:  # in whatever order and company the rows are read
            read = {key: value[rows] for key, value in batch.items()}
            watch.before(rows, read)
            model(input_ids=read["input_ids"], attention_mask=read["attention_mask"])
    found = watch.share(len(forget))

    seen: list[Any] = []
    means: list[list[torch.Tensor]] = []
    handles = [
        layer.lora_B[ADAPTER_NAME].register_forward_hook(lambda _m, _i, out: seen.append(out))
        for _, layer in lora_layers(model)
    ]
    for one in forget:
        seen.clear()
        with torch.no_grad():
            model(input_ids=torch.tensor([one.input_ids]))
        means.append([out[0, max(one.prompt_length, 1) - 1 : -1].mean(dim=0) for out in seen])
    for handle in handles:
        handle.remove()
    shares = []
    for layer in zip(*means, strict=True):
        stacked = torch.stack(layer)
        shares.append(stacked.mean(0).square().sum() / stacked.square().sum(1).mean())
    assert len(shares) > 4
    torch.testing.assert_close(found, torch.stack(shares).mean(), atol=1e-4, rtol=1e-3)


def trained(taught: Taught, folder: Path, separation: float, **options: object):
    model = anchored(taught)
    objective = Objective("ihl", retain_weight=1.3, separation=separation)
    arguments = training_arguments(folder, **{**DEFAULTS, **options})
    UnlearnTrainer(model, arguments, objective=objective, train_dataset=pairs(taught, epochs=8), pad_token_id=1).train()
    return model


def share_of(model, taught: Taught) -> float:
    batch, watch = collate(taught.tokens(taught.forget), 1), SharedShift()
    watch.before(torch.arange(len(batch["labels"])), batch)
    with torch.no_grad(), watch.watching(model):
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return watch.share(len(batch["labels"])).item()


def test_training_with_separation_shares_less_and_checkpointing_changes_nothing(taught: Taught, tmp_path: Path):
    plain, separate = trained(taught, tmp_path / "0", 0.0), trained(taught, tmp_path / "1", 2.0)
    assert share_of(separate, taught) < 0.9 * share_of(plain, taught)
    again = trained(taught, tmp_path / "2", 2.0, gradient_checkpointing=True)
    for (_, one), (_, other) in zip(lora_layers(separate), lora_layers(again), strict=True):
        torch.testing.assert_close(
            one.lora_B[ADAPTER_NAME].weight, other.lora_B[ADAPTER_NAME].weight, atol=1e-5, rtol=1e-3
        )


def test_separation_of_single_examples_is_refused(taught: Taught):
    with pytest.raises(InputError, match=r"objective\.separation"):
        taught.settings(objective={"separation": 1.0}, training={"batch_size": 1})
    with pytest.raises(InputError, match="separation"):
        Objective("ihl", separation=float("nan"))
