"""The reference model: the target, which is the same model with its adapters off."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor

from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.losses import Predictions
from unlora.models.scored import scored_logits
from unlora.training.parts import BlocksOfParts, Part, PartReading, read_parts


class Reference:
    """Reads without gradient, dropout or adapters, whatever the adapters have become; no second model is loaded."""

    def __init__(self, model: PeftModel, *, pad_token_id: int, batch_size: int) -> None:
        """Compute nothing yet."""
        self._model = model
        self._pad_token_id = pad_token_id
        self._batch_size = batch_size
        self._log_probs: dict[Part, Float[Tensor, " n"]] = {}

    def read(
        self, batch: Mapping[str, Tensor], parts: Sequence[Part], wanted: Sequence[Part], blocks: BlocksOfParts
    ) -> dict[Part, PartReading]:
        """Read some parts of a batch as `read_parts` does; nothing is computed where none is wanted."""
        if not wanted:
            return {}
        with self._target() as model:
            return read_parts(model, batch, parts, wanted, blocks)

    def sequence_log_probs(self, part: Part, examples: Sequence[TokenisedExample]) -> Float[Tensor, " n"]:
        """Log-probabilities of whole completions, on the CPU; computed once for each part."""
        if part not in self._log_probs:
            batches = (
                examples[start : start + self._batch_size] for start in range(0, len(examples), self._batch_size)
            )
            with self._target():
                self._log_probs[part] = torch.cat([self._score(batch) for batch in batches])
        return self._log_probs[part]

    def _score(self, examples: Sequence[TokenisedExample]) -> Float[Tensor, " batch"]:
        batch = collate(examples, self._pad_token_id)
        batch = {key: value.to(self._model.device) for key, value in batch.items()}
        predictions = Predictions.from_scored(scored_logits(self._model, batch), batch["labels"])
        return predictions.sequence_log_probs().cpu()

    @contextmanager
    def _target(self) -> Iterator[PeftModel]:
        was_training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad(), self._model.disable_adapter():
                yield self._model
        finally:
            self._model.train(was_training)
