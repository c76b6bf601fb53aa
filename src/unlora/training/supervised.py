"""Ordinary fine-tuning on the stock Trainer: how target models are made, and how an attacker teaches them again."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from unlora.adapters.products import casting_anew
from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.losses import Predictions
from unlora.models.scored import scored_logits
from unlora.training.callbacks import FINE_TUNING, StopWhenDiverged


class FineTuneTrainer(Trainer):
    """Minimises the mean over examples of each example's mean completion loss."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        train_dataset: Dataset[TokenisedExample],
        pad_token_id: int,
        callbacks: Sequence[TrainerCallback] = (),
        advice: str = FINE_TUNING,
    ) -> None:
        """Build the trainer.

        Args:
            model: whatever of it asks for a gradient is trained.
            args: see `training_arguments`.
            train_dataset: examples in the order of training.
            pad_token_id: id that fills short rows.
            callbacks: further callbacks; a gradient that is not finite stops the training by itself.
            advice: what to do then.
        """
        super().__init__(
            model=model,  # pyright: ignore[reportArgumentType]  a PeftModel is one too
            args=args,
            train_dataset=train_dataset,
            data_collator=lambda rows: collate(rows, pad_token_id),
            callbacks=[StopWhenDiverged(advice), *callbacks],
        )
        self.remove_callback(PrinterCallback)
        # The loss below is a mean over the batch: the Trainer divides it by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as the stock Trainer does, also within somebody's `torch.autocast`."""
        with casting_anew():
            return super().train(*args, **kwargs)

    def compute_loss(  # type: ignore[override]
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """One forward pass; logits only where a label is."""
        predictions = Predictions.from_scored(scored_logits(model, inputs), inputs["labels"])
        return -predictions.mean_log_probs().mean()
