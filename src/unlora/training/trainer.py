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
from unlora.adapters.products import bfloat16_products, casting_anew
from unlora.data.forget_retain import ForgetRetainPairs
from unlora.errors import InputError, TrainingDivergedError
from unlora.losses import ForgetInputs, Objective, RetainInputs
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
    """Whether it looks how probable forget examples are (`seen`): a softmax of theirs in every step where the forget
    term takes none itself, which a run does without where nobody asks."""

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
            data_collator=ForgetRetainCollator(pad_token_id, self._plan.parts, whole=self._plan.whole),
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
            stack.enter_context(casting_anew())
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
        read = self._read(model, inputs, self._plan.parts)
        parts = self._objective(read.forget, read.retain)
        self._record(parts.forget_term, parts.retain_term, parts.total, read.probability, inputs)
        total = parts.total
        if read.shared is not None:
            total = total + self._objective.separation * read.shared
        total = total * inputs["weight"]
        return total if self._penalty is None else total + self._penalty(self.accelerator.unwrap_model(model))

    def forget_side(self, model: nn.Module, inputs: dict[str, Tensor]) -> "Side":
        """Read the forget term's examples alone: for a trainer that takes the two sides at different weights.

        The loss is that of `compute_loss` without the retain term and the penalty. Nothing is logged (`log_sides`).
        """
        read = self._read(model, inputs, tuple(part for part in self._plan.parts if part != "retain"))
        term = self._objective.forget_term(read.forget).mean()
        loss = term if read.shared is None else term + self._objective.separation * read.shared
        return Side(term, loss * inputs["weight"], read.probability)

    def retain_side(self, model: nn.Module, inputs: dict[str, Tensor]) -> "Side":
        """Read the retain examples alone: the weighted retain term, and the penalty; 0 where there is neither."""
        term = loss = torch.zeros((), device=inputs["weight"].device)
        if self._objective.retain_term is not None:
            read = self._read(model, inputs, ("retain",))
            term = self._objective.retain_term(read.retain).mean()
            loss = self._objective.retain_weight * term * inputs["weight"]
        if self._penalty is not None:
            loss = loss + self._penalty(self.accelerator.unwrap_model(model))
        return Side(term, loss, torch.tensor(math.nan))

    def log_sides(self, forget: "Side", retain: "Side", inputs: Mapping[str, Tensor]) -> None:
        """Log a batch that was read side by side; once for each.

        Raises:
            TrainingDivergedError: a loss is not finite.
        """
        self._record(forget.term, retain.term, forget.loss + retain.loss, forget.probability, inputs)

    def _read(self, model: nn.Module, inputs: dict[str, Tensor], wanted: tuple[Part, ...]) -> "_Read":
        plan, needs = self._plan, self._objective.forget_term.needs
        index = inputs["forget_index"]
        compared: tuple[Part, ...] = tuple(part for part in plan.compared if part in wanted)
        reference = self._reference.read(inputs, plan.parts, compared, plan.compared_blocks)
        first = plan.parts[0] if plan.parts[0] in wanted else None
        log_probs = refused = None
        if first is not None and "reference_log_probs" in needs:
            log_probs = self._reference_log_probs(first, index)
        if first is not None and "refusal_reference_log_probs" in needs:
            refused = self._reference_log_probs("refusal", index)
        watched = first is not None and self._objective.separation > 0
        each = strengths(wanted, len(index), self._objective.forget_strength)

        def before(rows: Tensor, batch: Mapping[str, Tensor]) -> None:
            self._strength.set(each[rows], batch["input_ids"].shape[1])
            self._shared.before(rows, batch)

        with self._shared.watching(model) if watched else nullcontext():
            policy = read_parts(model, inputs, plan.parts, wanted, plan.blocks, before=before)
        forget = retain = None
        if first is not None:
            forget = ForgetInputs(
                **_both(first, policy, reference),
                reference_log_probs=log_probs,
                refusal=policy["refusal"].predictions if "refusal" in needs else None,
                refusal_reference_log_probs=refused,
            )
        if "retain" in wanted:
            retain = RetainInputs(**_both("retain", policy, reference))
        shared = self._shared.share(len(index)) if watched else None
        return _Read(forget, retain, shared, self._as_is(policy))

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
        if not self.sees or "forget" not in policy or self._plan.parts[0] != "forget":
            return torch.tensor(math.nan)
        if self._objective.forget_strength != 1:
            return torch.tensor(math.nan)
        with torch.no_grad():
            return policy["forget"].predictions.mean_log_probs().exp().mean()

    def _record(
        self,
        forget_term: Tensor,
        retain_term: Tensor | None,
        total: Tensor,
        probability: Tensor,
        inputs: Mapping[str, Tensor],
    ) -> None:
        retain_term = retain_term if retain_term is not None else torch.zeros_like(forget_term)
        values = torch.stack([total, forget_term, retain_term, probability.to(total.device)]).detach()
        mean, *found = processes.mean(values * inputs["weight"]).tolist()
        if not math.isfinite(mean):
            raise TrainingDivergedError(diverged(f"loss is {mean}", self.state.global_step + 1, self.args, UNLEARNING))
        self._logged.append(_Batch(*found, examples=len(inputs["forget_index"]) * processes.count()))


class Side(NamedTuple):
    """One side of the objective on one batch: the forget term's, or the retain term's."""

    term: Float[Tensor, ""]
    """Unweighted mean over the examples, which is what the log shows."""
    loss: Float[Tensor, ""]
    """What to differentiate; those of both sides together are what `compute_loss` gives."""
    probability: Float[Tensor, ""]
    """Mean probability of the forget examples; NaN where it was not looked at."""


class _Read(NamedTuple):
    """What was read of a batch; a side that was not wanted is None, and nobody looks at it."""

    forget: Any
    """`ForgetInputs`."""
    retain: Any
    """`RetainInputs`."""
    shared: Float[Tensor, ""] | None
    """`SharedShift.share`, where the objective asks for it."""
    probability: Float[Tensor, ""]


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
