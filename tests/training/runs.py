"""Short runs of UnlearnTrainer on the taught model."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from tests.taught import PAD, Taught
from unlora.data.forget_retain import ForgetRetainPairs
from unlora.data.refusals import refuse_each
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.losses import Objective
from unlora.models.load import load_tokenizer
from unlora.starts.attach import attach_anchored_adapter
from unlora.training import UnlearnTrainer, training_arguments
from unlora.training.callbacks import TrainLog, read_train_log

DEFAULTS: dict[str, Any] = {
    "learning_rate": 5e-3,
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "warmup_steps": 1,
    "max_grad_norm": 1.0,
    "gradient_checkpointing": False,
    "save_steps": None,
    "seed": 0,
    "use_cpu": True,
}


def anchored(taught: Taught, *, rank: int = 4, **options: Any) -> PeftModel:
    """The taught model with a fresh adapter."""
    return attach_anchored_adapter(taught.load(**options).model, rank=rank, alpha=8.0)


def pairs(taught: Taught, *, epochs: int = 2, retain: bool = True, seed: int = 0) -> ForgetRetainPairs:
    """The stream of training, with a refusal beside each forget example."""
    kept = taught.tokens(taught.retain) if retain else None
    return ForgetRetainPairs(taught.tokens(taught.forget), kept, refusals=refused(taught), epochs=epochs, seed=seed)


def refused(taught: Taught) -> list[TokenisedExample]:
    """The forget set answered with refusals."""
    tokeniser = ExampleTokeniser(load_tokenizer(str(taught.target)), template="plain", max_length=128)
    return refuse_each(tokeniser, load_examples(str(taught.forget)).examples, seed=0)


def trainer_for(
    model: PeftModel, stream: ForgetRetainPairs, folder: Path, objective: Objective | None = None, **arguments: Any
) -> UnlearnTrainer:
    """A trainer that logs to `folder`."""
    return UnlearnTrainer(
        model,
        training_arguments(folder / "checkpoints", **(DEFAULTS | arguments)),
        objective=objective or Objective("ihl", retain_weight=1.3),
        train_dataset=stream,
        pad_token_id=PAD,
        callbacks=[TrainLog(folder / "train_log.jsonl")],
    )


def train(
    model: PeftModel, stream: ForgetRetainPairs, folder: Path, objective: Objective | None = None, **arguments: Any
) -> list[dict[str, Any]]:
    """Train and return the lines of the log."""
    trainer_for(model, stream, folder, objective, **arguments).train()
    return read_train_log(folder / "train_log.jsonl")


def adapter_tensors(model: PeftModel) -> dict[str, Tensor]:
    """Copies of everything trainable, by name."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if "lora_" in name}


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Over all tensors of two adapters."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@torch.no_grad()
def logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """All logits of a batch."""
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
