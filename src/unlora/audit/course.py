"""How one attack on one model goes: what it is taught, and the tested answers' probabilities step by step."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unlora.audit.attackers import Attacker
from unlora.audit.likelihoods import Look
from unlora.audit.settings import RelearningSettings
from unlora.data.forget_retain import ShuffledEpochs
from unlora.data.records import ExampleSet
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import TrainingDivergedError
from unlora.models.attention import fastest_attention
from unlora.models.score import score_completions
from unlora.models.wrapping import CausalModel, evaluating
from unlora.training import FineTuneTrainer, training_arguments
from unlora.training.callbacks import RELEARNING, diverged

Matrix = Float[np.ndarray, "step example"]

SCORED_AT_ONCE = 16


@dataclass(frozen=True)
class Course:
    """One attack on one model: every tested example at every step that was measured, step 0 included."""

    steps: tuple[int, ...]
    probability: Matrix
    extraction_strength: Matrix


@dataclass(frozen=True)
class Trial:
    """Who trains on what, and what is looked at."""

    taught: ExampleSet
    """What the attacker trains on."""
    tested: ExampleSet
    """What is looked at; none of it should be in `taught`, or the attack shows what it taught."""
    attacker: Attacker
    """How it trains; its `learns_from` is for who chooses `taught`."""
    seed: int = 0
    """Of the data order, and of the attacker's adapter."""
    before: Look | None = None
    """The tested examples in the model as it is, which an attacker changes by its first step only; None looks."""


def relearn(
    model: CausalModel,
    tokeniser: ExampleTokeniser,
    trial: Trial,
    chosen: RelearningSettings | None = None,
    *,
    batch_size: int = SCORED_AT_ONCE,
    progress: Callable[[int], None] | None = None,
) -> Course:
    """Let an attacker train on some examples, and look at others as it goes; the model is afterwards as it was.

    Args:
        model: whatever is deployed: with its unlearning adapter on, or plain.
        tokeniser: the template the model is asked with.
        trial: the attacker, what it trains on and what is looked at.
        chosen: steps, batch size and how often is measured; None takes the defaults.
        batch_size: examples scored in one pass.
        progress: called with the number of each finished step.

    Raises:
        TrainingDivergedError: a gradient was not finite, or no answer has a probability any more.
    """
    chosen = chosen or RelearningSettings()
    examples = tokeniser.encode_set(trial.taught)
    sequences = [(one.input_ids, one.prompt_length) for one in tokeniser.encode_set(trial.tested)]

    def look() -> Look:
        scores = score_completions(model, sequences, pad_token_id=tokeniser.pad_token_id, batch_size=batch_size)
        return Look.at(scores)

    with ExitStack() as stack:
        stack.enter_context(evaluating(model))  # the Trainer leaves it in training mode
        folder = Path(stack.enter_context(TemporaryDirectory()))
        trainee = stack.enter_context(trial.attacker.attacking(model, seed=trial.seed))
        measure = _Measure(look, trial.before or look(), measured_steps(chosen), progress or (lambda _step: None))
        size = min(chosen.batch_size, len(examples))
        arguments = training_arguments(
            folder,
            learning_rate=trial.attacker.learning_rate,
            batch_size=size,
            gradient_accumulation_steps=1,
            warmup_steps=0,
            max_grad_norm=1.0,
            gradient_checkpointing=False,
            save_steps=None,
            seed=trial.seed,
            use_cpu=trainee.device.type == "cpu",
            lr_scheduler_type="constant",
            max_steps=chosen.steps,
        )
        stack.enter_context(fastest_attention(trainee, longest=max(len(one.input_ids) for one in examples)))
        FineTuneTrainer(
            trainee,
            arguments,
            train_dataset=ShuffledEpochs(
                examples, epochs=math.ceil(chosen.steps * size / len(examples)), seed=trial.seed
            ),
            pad_token_id=tokeniser.pad_token_id,
            callbacks=[measure],
            advice=RELEARNING,
        ).train()
    course = Course(
        tuple(measured_steps(chosen)),
        np.array([point.probability for point in measure.points]),
        np.array([point.extraction_strength for point in measure.points]),
    )
    _refuse_ruined(course, arguments)
    return course


def _refuse_ruined(course: Course, arguments: TrainingArguments) -> None:
    """Refuse a course in which a model that gave answers a probability gives none any more, with finite weights."""
    scored = [bool(np.isfinite(row).any()) for row in course.probability]
    if scored[0] and not all(scored):
        step = course.steps[scored.index(False)]
        raise TrainingDivergedError(
            diverged("trained weights give no answer a probability", step, arguments, RELEARNING)
        )


def measured_steps(chosen: RelearningSettings) -> list[int]:
    """Steps at which the tested examples are looked at: 0, then every so many, and the last."""
    return sorted({*range(0, chosen.steps + 1, chosen.measure_every), chosen.steps})


class _Measure(TrainerCallback):
    """Looks at the tested examples at the steps that are to be measured."""

    def __init__(
        self, look: Callable[[], Look], before: Look, steps: list[int], progress: Callable[[int], None]
    ) -> None:
        self._look, self._steps, self._progress = look, set(steps), progress
        self.points = [before]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step in self._steps:
            self.points.append(self._look())
        self._progress(state.global_step)
