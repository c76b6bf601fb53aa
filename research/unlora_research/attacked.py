"""An attacker in the loop: the forget term is taken with an adapter in place that was just taught other examples."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from peft import PeftModel
from torch import Tensor, nn

from unlora.audit.adversary import attacked
from unlora.data.collate import collate
from unlora.errors import InputError
from unlora.losses import Predictions
from unlora.models.scored import scored_logits
from unlora.models.wrapping import evaluating
from unlora.training.trainer import Side
from unlora_research.sides import SidesTrainer, gradients_of, trained_parameters


class AttackedTrainer(SidesTrainer):
    """Minimise forget term of theta + phi + retain_weight x retain term of theta, phi a freshly taught attacker.

    Before each step a new LoRA phi, that of the audit, takes a few steps of Adam on the NLL of forget examples which
    the step does not read; no gradient goes through them (first order: TAR, arXiv 2408.00761; MUDMAN, arXiv
    2506.12484). Whoever attacks the result with LoRA repeats what training has seen, so that attackers of other rates
    and kinds count.
    """

    attacker_steps: ClassVar[int] = 2
    """Of Adam before each step; 0 is plain training."""
    attacker_rate: ClassVar[float] = 2.5
    """Its learning rate over that of unlearning: 5e-4 beside the default preset's 2e-4, as in the audit."""
    attacker_rank: ClassVar[int] = 8
    attacker_batch: ClassVar[int] = 4
    """Examples of each of its steps."""

    def __init__(self, *args: Any, pad_token_id: int, **options: Any) -> None:
        """Build the trainer as `UnlearnTrainer` does."""
        super().__init__(*args, pad_token_id=pad_token_id, **options)
        self._pad_token_id = pad_token_id

    @property
    def is_plain(self) -> bool:
        """Without an attacker's step."""
        return not self.attacker_steps

    def forget_elsewhere(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Side, list[Tensor]]:
        """The attacker's steps, and one pass with it in place."""
        trained = trained_parameters(model)
        with self.attacking(inputs["forget_index"]):
            forget = self.forget_side(model, inputs)
            gradients = gradients_of(forget.loss, trained)
        # How probable the examples are with the attacker in place says nothing about the level.
        return Side(forget.term, forget.loss, torch.full_like(forget.term, torch.nan)), gradients

    @contextmanager
    def attacking(self, read: Tensor) -> Iterator[None]:
        """Teach a new attacker, and leave it in place for as long as the block lasts; the adapter can be trained.

        Args:
            read: indices of the forget examples that it is not to see.

        Raises:
            InputError: all of them.
        """
        model = self.accelerator.unwrap_model(self.model)
        asked = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        seed = self.args.seed * 100_003 + self.state.global_step
        lessons = self._lessons(read, seed)
        try:
            with attacked(model, rank=self.attacker_rank, seed=seed) as trainee:
                self._teach(trainee, lessons)
                for parameter in trained_parameters(trainee):
                    parameter.requires_grad_(False)
                for parameter, was in asked:
                    parameter.requires_grad_(was)
                yield
        finally:
            for parameter, was in asked:
                parameter.requires_grad_(was)

    def _lessons(self, read: Tensor, seed: int) -> list[dict[str, Tensor]]:
        others = sorted(set(range(len(self._pairs.forget))) - set(read.tolist()))
        if not others:
            raise InputError(
                f"training.trainer '{type(self).__name__}': a step reads all {len(read)} forget examples, and the "
                "attacker needs others; lower training.batch_size."
            )
        draw = random.Random(seed)
        drawn = [draw.sample(others, min(self.attacker_batch, len(others))) for _ in range(self.attacker_steps)]
        return [collate([self._pairs.forget[index] for index in indices], self._pad_token_id) for indices in drawn]

    def _teach(self, trainee: PeftModel, lessons: list[dict[str, Tensor]]) -> None:
        phi = trained_parameters(trainee)
        optimiser = torch.optim.Adam(phi, lr=self.attacker_rate * self.args.learning_rate)
        with evaluating(trainee):  # the adapter acts at its whole strength
            for lesson in lessons:
                batch = {key: value.to(trainee.device) for key, value in lesson.items()}
                predictions = Predictions.from_scored(scored_logits(trainee, batch), batch["labels"])
                loss = -predictions.mean_log_probs().mean()
                for parameter, gradient in zip(phi, gradients_of(loss, phi), strict=True):
                    parameter.grad = gradient
                optimiser.step()
