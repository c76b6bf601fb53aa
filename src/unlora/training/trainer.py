"""UnlearnTrainer: the stock Trainer with an unlearning objective in `compute_loss`, and little else."""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from unlora import processes
from unlora.adapters.products import bfloat16_products
from unlora.data.forget_retain import ForgetRetainPairs
from unlora.errors import InputError, TrainingDivergedError
from unlora.losses import ForgetInputs, Objective, ObjectiveParts, RetainInputs
from unlora.models.attention import fastest_attention
from unlora.shapes import PerExample
from unlora.training.arguments import refuse_weight_decay
from unlora.training.callbacks import UNLEARNING, StopWhenDiverged, diverged
from unlora.training.parts import BatchPlan, ForgetRetainCollator, Part, PartReading, read_parts
from unlora.training.reference import Reference
from unlora.training.row_strength import RowStrength, strengths
from unlora.training.shared_shift import SharedShift

Penalty = Callable[[nn.Module], Float[Tensor, ""]]

TELLING = 4
"""Forget examples of a step from which on their mean tells something about all."""


class UnlearnTrainer(Trainer):
    """Minimise forget term + retain_weight x retain term, and compute no more than the two need.

    The reference model is the same model with its adapters off. Its log-probabilities of whole completions are computed
    once for every forget example; its full predictions and hidden states batch by batch.
    """

    sees: bool = True
    """Whether it looks how probable forget examples are (`seen`): a second softmax of theirs in every step, which a run
    does without where nobody asks."""

    def __init__(
        self,
        model: PeftModel,
        args: TrainingArguments,
        *,
        objective: Objective,
        penalty: Penalty | None = None,
        train_dataset: ForgetRetainPairs,
        pad_token_id: int,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        """Build the trainer.

        Args:
            model: the target model with its unlearning adapter.
            args: arguments with weight_decay 0 (see `training_arguments`).
            objective: what to minimise.
            penalty: of the adapter's parameters, added to the objective; needs no data.
            train_dataset: pairs of forget and retain examples, in the order of training.
            pad_token_id: id that fills short rows.
            callbacks: further callbacks.

        Raises:
            InputError: weight decay, an objective with a retain term but no retain set or with a forget term that
                reads refusals but without any, or one that reads a block which the model does not have.
        """
        refuse_weight_decay(args)
        if objective.retain is not None and train_dataset.retain is None:
            raise InputError("the objective has a retain term, but there is no retain set.")
        if objective.needs_refusals and train_dataset.refusals is None:
            raise InputError(f"'{objective.forget_term.name}' reads refusals; give one for each forget example.")
        self._plan = BatchPlan.of(objective)
        self._plan.refuse_unless_fits(model)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            data_collator=ForgetRetainCollator(pad_token_id, self._plan.parts),
            callbacks=[StopWhenDiverged(UNLEARNING), *(callbacks or [])],
        )
        self.remove_callback(PrinterCallback)
        # The loss below is a mean over the batch: the Trainer divides it by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self._objective = objective
        self._penalty = penalty
        self._shared = SharedShift()
        self._strength = RowStrength()
        self._pairs = train_dataset
        unwrapped = self.accelerator.unwrap_model(model)
        self._reference = Reference(unwrapped, pad_token_id=pad_token_id, batch_size=args.per_device_train_batch_size)
        self._logged: list[_Batch] = []

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as the stock Trainer does, with the adapter at two strengths where the objective asks for it."""
        model = self.accelerator.unwrap_model(self.model)
        with ExitStack() as stack:
            if self._objective.forget_strength != 1:
                stack.enter_context(self._strength.installed(model))
            stack.enter_context(bfloat16_products(model))
            stack.enter_context(fastest_attention(model, longest=self._pairs.longest))
            return super().train(*args, **kwargs)

    def compute_loss(  # type: ignore[override]
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """One forward pass over all parts together, and one with the adapters off over those that need it."""
        plan, needs = self._plan, self._objective.forget_term.needs
        reference = self._reference.read(inputs, plan.parts, plan.compared, plan.compared_blocks)
        index = inputs["forget_index"]
        log_probs = self._reference_log_probs(plan.parts[0], index) if "reference_log_probs" in needs else None
        refused = self._reference_log_probs("refusal", index) if "refusal_reference_log_probs" in needs else None
        separation = self._objective.separation
        each = strengths(plan.parts, len(index), self._objective.forget_strength)

        def before(rows: Tensor, batch: Mapping[str, Tensor]) -> None:
            self._strength.set(each[rows], batch["input_ids"].shape[1])
            self._shared.before(rows, batch)

        with self._shared.watching(model) if separation else nullcontext():
            policy = read_parts(model, inputs, plan.parts, plan.parts, plan.blocks, before=before)
        forget = ForgetInputs(
            **_both(plan.parts[0], policy, reference),
            reference_log_probs=log_probs,
            refusal=policy["refusal"].predictions if "refusal" in needs else None,
            refusal_reference_log_probs=refused,
        )
        retain = RetainInputs(**_both("retain", policy, reference)) if "retain" in plan.parts else None
        parts = self._objective(forget, retain)
        self._record(parts, self._as_is(policy), inputs["weight"], len(index))
        total = parts.total
        if separation:
            total = total + separation * self._shared.share(len(index))
        total = total * inputs["weight"]
        return total if self._penalty is None else total + self._penalty(self.accelerator.unwrap_model(model))

    def get_train_dataloader(self) -> DataLoader:
        """Every process reads all pairs in order; the collator leaves it its share of each batch.

        accelerate would deal out whole batches, and repeat pairs of the first ones where the last cannot be shared.
        """
        dataset: Any = self.train_dataset
        return DataLoader(dataset, batch_size=self.args.train_batch_size, collate_fn=self.data_collator)

    def _reference_log_probs(self, part: Part, forget_index: Tensor) -> PerExample:
        examples = self._pairs.refusals if part == "refusal" else self._pairs.forget
        cached = self._reference.sequence_log_probs(part, examples or [])
        return cached[forget_index.cpu()].to(forget_index.device)

    @property
    def seen(self) -> float | None:
        """Mean probability of the forget examples of the step just taken, as they were when it began.

        None where they were not read as they are (refused, or at another strength), were fewer than four, or where
        `sees` is off.
        """
        count = sum(batch.examples for batch in self._logged)
        mean = sum(batch.probability * batch.examples for batch in self._logged) / max(count, 1)
        return None if count < TELLING or math.isnan(mean) else mean

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the unweighted parts of the objective, averaged over the steps since the last line."""
        if self._logged and "loss" in logs:
            count = len(self._logged)
            logs["forget_term"] = sum(batch.forget_term for batch in self._logged) / count
            logs["retain_term"] = sum(batch.retain_term for batch in self._logged) / count
            self._logged.clear()
        super().log(logs, start_time)

    def _as_is(self, policy: Mapping[Part, PartReading]) -> Float[Tensor, ""]:
        """Mean probability of the forget examples of a batch; NaN where nobody looks, or something else was read."""
        if not self.sees or self._plan.parts[0] != "forget" or self._objective.forget_strength != 1:
            return torch.tensor(math.nan)
        with torch.no_grad():
            return policy["forget"].predictions.mean_log_probs().exp().mean()

    def _record(self, parts: ObjectiveParts, probability: Tensor, weight: Tensor, pairs: int) -> None:
        retain_term = parts.retain_term if parts.retain_term is not None else torch.zeros_like(parts.forget_term)
        values = torch.stack([parts.total, parts.forget_term, retain_term, probability.to(parts.total.device)]).detach()
        total, *found = processes.mean(values * weight).tolist()
        if not math.isfinite(total):
            raise TrainingDivergedError(diverged(f"loss is {total}", self.state.global_step + 1, self.args, UNLEARNING))
        self._logged.append(_Batch(*found, examples=pairs * processes.count()))


class _Batch(NamedTuple):
    """Means over the pairs of a batch, of all processes together."""

    forget_term: float
    retain_term: float
    probability: float
    """Of the forget examples' answers; NaN where it was not seen."""
    examples: int
    """How many; of several processes as many times the first one's."""


def _both(part: Part, policy: Mapping[Part, PartReading], reference: Mapping[Part, PartReading]) -> dict[str, Any]:
    """What policy and reference say about one part, by the fields of `ForgetInputs` and `RetainInputs`."""
    compared = reference.get(part)
    return {
        "predictions": policy[part].predictions,
        "hidden_states": policy[part].hidden_states,
        "reference": compared.predictions if compared is not None else None,
        "reference_hidden_states": compared.hidden_states if compared is not None else None,
    }
