"""What a run writes and shows while it trains."""

import json
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unlora import processes
from unlora.artifacts import parse_json_object, write_text
from unlora.errors import InputError, TrainingDivergedError
from unlora.losses import Predictions
from unlora.models.scored import scored_logits
from unlora.models.wrapping import CausalModel, evaluating
from unlora.training.checkpoints import seal

LOGGED = ("loss", "forget_term", "retain_term", "grad_norm", "learning_rate")


class SealCheckpoints(TrainerCallback):
    """Seals every checkpoint, once all processes have written their part of it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        processes.wait()
        processes.on_main(partial(seal, Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"))


class TrainLog(TrainerCallback):
    """Appends one JSON line per logging step: step, loss, forget_term, retain_term, grad_norm, seconds.

    A resumed run drops the lines after the checkpoint it starts from and goes on; `seconds` counts work, not waiting.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = 0.0
        self._before = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        kept = [line for line in read_train_log(self._path) if line["step"] <= state.global_step]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._before = kept[-1]["seconds"] if kept else 0.0
        self._start = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        line = {"step": state.global_step, **{key: logs[key] for key in LOGGED if key in logs}}
        line["seconds"] = round(self._before + time.perf_counter() - self._start, 3)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


UNLEARNING = (
    "training stopped, the checkpoints before it are kept. Likely causes, in this order: the learning rate ({rate:g}) "
    "is too high; the retain weight is too low; an importance map measured with a published-mode probe of large sigma. "
    "Other settings need another --output."
)
FINE_TUNING = "training stopped, nothing was saved: the learning rate ({rate:g}) is too high."
RELEARNING = (
    "the attack stopped, what was finished before it is kept. The attacker's learning rate ({rate:g}) is too high: "
    "choose other attackers with --set relearning.attackers=[NAME,...]; other settings need another --output."
)
"""What to do when training has diverged, by what is trained."""


class StopWhenDiverged(TrainerCallback):
    """Raises at a step with an infinite or undefined gradient or result: no checkpoint ever holds it."""

    def __init__(self, advice: str) -> None:
        """Say what to do about it: `UNLEARNING`, `FINE_TUNING` or `RELEARNING`."""
        self._advice = advice

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None] if model else []
        # Of a sharded gradient every process looks at its own piece, and all hear what the others found.
        finite = all(bool(torch.isfinite(processes.local(gradient)).all()) for gradient in gradients)
        if not all(processes.from_all(finite)):
            raise TrainingDivergedError(diverged("gradient is not finite", state.global_step + 1, args, self._advice))

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        # Between two saves the next step's loss says it; what the last step leaves nothing else looks at.
        if model is None or not (control.should_save or state.global_step >= state.max_steps):
            return
        if not all(processes.from_all(_finite(model))):
            raise TrainingDivergedError(
                diverged("weights that it left are not finite", state.global_step, args, self._advice)
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # DeepSpeed takes the step, or leaves it out, within the backward pass; of the gradient the norm alone is heard.
        if not math.isfinite((logs or {}).get("grad_norm", 0.0)):
            raise TrainingDivergedError(diverged("gradient is not finite", state.global_step, args, self._advice))


def diverged(what: str, step: int, args: TrainingArguments, advice: str) -> str:
    """Say what happened in a step, and what to change."""
    return f"step {step}: the {what}; {advice.format(rate=args.learning_rate)}"


def refuse_useless(
    model: CausalModel, batch: Mapping[str, Tensor], steps: int, args: TrainingArguments, advice: str
) -> None:
    """Refuse a trained model that gives an example no probability: its weights are finite, what it computes is not.

    Args:
        model: after training, whole in this process.
        batch: a few examples with their labels.
        steps: that were taken.
        args: of the training.
        advice: as `StopWhenDiverged` takes it.

    Raises:
        TrainingDivergedError: nothing is to be saved.
    """
    batch = {key: value.to(model.device) for key, value in batch.items()}
    with evaluating(model), torch.no_grad():
        predictions = Predictions.from_scored(scored_logits(model, batch), batch["labels"])
        log_probs = predictions.mean_log_probs()
    lost = int((~log_probs.isfinite()).sum())
    if lost:
        what = f"trained weights give {lost} of {len(log_probs)} examples no probability"
        raise TrainingDivergedError(diverged(what, steps, args, advice))


def _finite(model: nn.Module) -> bool:
    """Whether every trained number that this process holds is finite; one wait for the device."""
    trained = [processes.local(parameter) for parameter in model.parameters() if parameter.requires_grad]
    return not trained or bool(torch.stack([torch.isfinite(one).all() for one in trained]).all())


class ReportSteps(TrainerCallback):
    """Reports each finished step: `report(steps done, steps in all, last logged values)`."""

    def __init__(self, report: Callable[[int, int, dict[str, float]], None]) -> None:
        self._report = report

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._report(state.global_step, state.max_steps, logs)


def read_train_log(path: Path) -> list[dict[str, Any]]:
    """Lines of a train log up to the first that is damaged: a kill cuts the last one short."""
    lines: list[dict[str, Any]] = []
    if path.is_file():
        for text in path.read_bytes().splitlines():
            try:
                line = parse_json_object(text.decode("utf-8"), str(path))
            except (InputError, UnicodeDecodeError):
                break
            if type(line.get("step")) is not int or not isinstance(line.get("seconds"), int | float):
                break
            lines.append(line)
    return lines
