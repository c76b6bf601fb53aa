"""Training within somebody's `torch.autocast` reads the weights as they are, not as they were when the block began."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from tests.taught import PAD, Taught
from tests.training.runs import DEFAULTS, adapter_tensors, largest_difference, logits, pairs, train
from unlora.adapters import attach_plain_adapter
from unlora.adapters.strength import set_strength
from unlora.data.collate import collate
from unlora.data.forget_retain import ShuffledEpochs
from unlora.models.target_modules import find_target_modules
from unlora.training import FineTuneTrainer, training_arguments

Adapter = dict[str, Tensor]


def plain(taught: Taught) -> PeftModel:
    """A plain adapter: its factors are leaves, of which a block keeps casts; those of an anchored one are not."""
    model = taught.load().model
    torch.manual_seed(0)
    return attach_plain_adapter(model, find_target_modules(model, ["model.layers.0.mlp.up_proj"]), rank=2, alpha=4.0)


def unlearned(taught: Taught, folder: Path) -> Adapter:
    """What a few steps of unlearning make of it."""
    model = plain(taught)
    train(model, pairs(taught), folder)
    return adapter_tensors(model)


def fine_tuned(taught: Taught, folder: Path) -> Adapter:
    """What a few steps of plain training make of it."""
    model = plain(taught)
    stream = ShuffledEpochs(taught.tokens(taught.forget), epochs=2, seed=0)
    arguments = training_arguments(folder / "checkpoints", **DEFAULTS)
    FineTuneTrainer(model, arguments, train_dataset=stream, pad_token_id=PAD).train()
    return adapter_tensors(model)


@pytest.mark.parametrize("trained", [unlearned, fine_tuned])
def test_a_block_of_autocast_around_a_training_does_not_stop_it(
    taught: Taught, tmp_path: Path, trained: Callable[[Taught, Path], Adapter]
):
    """With the block's cache on, the adapter is to the bit what it is with the cache off."""
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        expected = trained(taught, tmp_path / "off")
    with torch.autocast("cpu", torch.bfloat16):
        found = trained(taught, tmp_path / "on")
        assert torch.is_autocast_cache_enabled()
    assert largest_difference(found, expected) == 0


def test_what_is_read_after_a_change_of_strength_is_the_changed_adapter(taught: Taught, tmp_path: Path):
    model = plain(taught)
    train(model, pairs(taught), tmp_path)
    batch = collate(taught.tokens(taught.forget)[:2], PAD)
    with torch.autocast("cpu", torch.bfloat16):
        trained = logits(model, batch)
        with torch.enable_grad():
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        set_strength(model, 0.0)
        left = logits(model, batch)
        with model.disable_adapter():
            target = logits(model, batch)
    assert not torch.equal(trained, target)
    assert torch.equal(left, target)
