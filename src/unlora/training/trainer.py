"""UnlearnTrainer: the stock Trainer with an unlearning objective in `compute_loss`, and little else."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from unlora.data.collate import collate
from unlora.data.forget_retain import ForgetRetainPairs
from unlora.errors import InputError, TrainingDivergedError
from unlora.losses import Objective, ObjectiveParts, Predictions
from unlora.models.forward import completion_logits
from unlora.training.arguments import refuse_weight_decay
from unlora.training.callbacks import StopWhenDiverged, diverged


class ForgetRetainCollator:
    """Makes one right-padded batch of forget and retain examples, so that one forward pass serves both."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Forget examples come first; `forget_index` has one entry for each of them."""
        examples = [pair["forget"] for pair in pairs]
        examples += [pair["retain"] for pair in pairs if pair["retain"] is not None]
        batch = collate(examples, self._pad_token_id)
        return {**batch, "forget_index": torch.tensor([pair["forget_index"] for pair in pairs])}


class UnlearnTrainer(Trainer):
    """Minimise forget term + retain_weight x retain term.

    Reference log-probabilities, where the forget term needs them, are those of the same model with its adapters off,
    computed once for every forget example.
    """

    def __init__(
        self,
        model: PeftModel,
        args: TrainingArguments,
        *,
        objective: Objective,
        train_dataset: ForgetRetainPairs,
        processing_class: PreTrainedTokenizerBase | None = None,
        pad_token_id: int,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        """Build the trainer.

        Args:
            model: the target model with its unlearning adapter.
            args: arguments with weight_decay 0 (see `training_arguments`).
            objective: what to minimise.
            train_dataset: pairs of forget and retain examples, in the order of training.
            processing_class: the tokenizer, saved with every checkpoint where given.
            pad_token_id: id that fills short rows.
            callbacks: further callbacks.

        Raises:
            InputError: weight decay, or an objective with a retain term but no retain set.
        """
        refuse_weight_decay(args)
        if objective.retain is not None and train_dataset.retain is None:
            raise InputError("the objective has a retain term, but there is no retain set.")
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            processing_class=processing_class,
            data_collator=ForgetRetainCollator(pad_token_id),
            callbacks=[StopWhenDiverged(), *(callbacks or [])],
        )
        self.remove_callback(PrinterCallback)
        # The loss below is a mean over the batch: the Trainer divides it by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self._objective = objective
        self._pairs = train_dataset
        self._pad_token_id = pad_token_id
        self._reference: Float[Tensor, " n"] | None = None
        self._parts: list[tuple[float, float]] = []

    def compute_loss(  # type: ignore[override]
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """One forward pass over forget and retain examples together."""
        forget_index = inputs["forget_index"]
        reference = self._reference_log_probs()[forget_index.cpu()] if self._objective.needs_reference else None
        predictions = Predictions.from_model_output(completion_logits(model, inputs), inputs["labels"])
        parts = self._objective(*split(predictions, forget_index.shape[0]), _to(reference, predictions.logits))
        self._record(parts)
        return parts.total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the unweighted parts of the objective, averaged over the steps since the last line."""
        if self._parts and "loss" in logs:
            count = len(self._parts)
            logs["forget_term"] = sum(forget for forget, _ in self._parts) / count
            logs["retain_term"] = sum(retain for _, retain in self._parts) / count
            self._parts.clear()
        super().log(logs, start_time)

    def _record(self, parts: ObjectiveParts) -> None:
        total = float(parts.total.detach())
        if not math.isfinite(total):
            raise TrainingDivergedError(diverged(f"loss is {total}", self.state, self.args))
        retain = float(parts.retain_term.detach()) if parts.retain_term is not None else 0.0
        self._parts.append((float(parts.forget_term.detach()), retain))

    @torch.no_grad()
    def _reference_log_probs(self) -> Float[Tensor, " n"]:
        if self._reference is None:
            model = self.accelerator.unwrap_model(self.model)
            was_training = model.training
            model.eval()
            with model.disable_adapter():
                self._reference = torch.cat([self._sequence_log_probs(model, rows) for rows in self._reference_rows()])
            model.train(was_training)
        return self._reference

    def _reference_rows(self) -> list[range]:
        count, size = len(self._pairs.forget), self.args.per_device_train_batch_size
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    def _sequence_log_probs(self, model: nn.Module, rows: range) -> Float[Tensor, " batch"]:
        batch = collate([self._pairs.forget[row] for row in rows], self._pad_token_id)
        batch = {key: value.to(self.args.device) for key, value in batch.items()}
        predictions = Predictions.from_model_output(completion_logits(model, batch), batch["labels"])
        return predictions.sequence_log_probs().cpu()


def split(predictions: Predictions, forget_count: int) -> tuple[Predictions, Predictions | None]:
    """Undo the joining of forget and retain examples."""
    logits, labels = predictions.logits, predictions.labels
    forget = Predictions(logits[:forget_count], labels[:forget_count])
    if logits.shape[0] == forget_count:
        return forget, None
    return forget, Predictions(logits[forget_count:], labels[forget_count:])


def _to(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return tensor.to(like.device) if tensor is not None else None
