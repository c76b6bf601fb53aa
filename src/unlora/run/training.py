"""The training stage of a run: the objective that its settings name, what that reads, and the steps themselves."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from peft import PeftModel

from unlora import processes
from unlora.data.forget_retain import ForgetRetainPairs
from unlora.data.records import ExampleSet
from unlora.data.refusals import REFUSALS, read_refusals, refuse_each
from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError
from unlora.losses import Objective
from unlora.models.load import LoadedModel
from unlora.run.folder import RunFolder
from unlora.run.reporter import Reporter
from unlora.run.sets import Sets, probe_batch
from unlora.run.settings import ObjectiveSettings, UnlearnSettings
from unlora.training import UnlearnTrainer, training_arguments
from unlora.training.callbacks import UNLEARNING, Progress, TrainLog, refuse_useless
from unlora.training.checkpoints import last_complete_checkpoint, remove_damaged_checkpoints, sharding_of
from unlora.training.parts import BatchPlan
from unlora.training.trainer import Penalty


def make_objective(settings: ObjectiveSettings) -> Objective:
    """Make the objective that the settings name; a module:Class is imported.

    Raises:
        InputError: a term, a parameter or a weight that there is not.
    """
    return Objective(
        settings.forget,
        retain=settings.retain,
        retain_weight=settings.retain_weight,
        forget_parameters=settings.forget_parameters,
        retain_parameters=settings.retain_parameters,
    )


def load_refusals(objective: Objective, settings: ObjectiveSettings) -> tuple[str, ...] | None:
    """Return the refusals to draw from; None where the objective reads none.

    Raises:
        InputError: a file that cannot be read, or one that nothing reads.
    """
    if objective.needs_refusals:
        return read_refusals(Path(settings.refusals)) if settings.refusals is not None else REFUSALS
    if settings.refusals is not None:
        raise InputError(f"objective.refusals: '{settings.forget}' reads no refusals; leave the file out.")
    return None


def data_hashes(
    forget_set: ExampleSet, retain_set: ExampleSet | None, refusals: Sequence[str] | None
) -> dict[str, str | None]:
    """Hashes of everything that the run trains on."""
    hashes = {"forget_sha256": forget_set.sha256(), "retain_sha256": retain_set.sha256() if retain_set else None}
    if refusals is None:
        return hashes
    return hashes | {"refusals_sha256": hashlib.sha256(json.dumps(refusals).encode()).hexdigest()}


def prepare_objective(
    objective: Objective, target: LoadedModel, sets: Sets, refusals: Sequence[str] | None, *, seed: int
) -> list[TokenisedExample] | None:
    """Check that the model has the blocks that the objective reads, and answer the forget set with refusals.

    Returns:
        One refusal a forget example; None where the objective reads none.

    Raises:
        InputError: the model has fewer blocks, or an example is plain text, which no refusal can answer.
    """
    BatchPlan.of(objective).refuse_unless_fits(target.model)
    if refusals is None:
        return None
    return refuse_each(sets.tokeniser, sets.forget.examples, seed=seed, refusals=refusals)


def refuse_engine(settings: UnlearnSettings) -> None:
    """Refuse what cannot be trained on pieces of each weight.

    Raises:
        InputError: naming the setting.
    """
    engine = processes.sharding()
    if engine == "fsdp2" and settings.model.quantisation == "8bit":
        raise InputError(
            "model.quantisation '8bit': fsdp2 makes plain parameters of bitsandbytes' own, which its layers cannot "
            "read; use --accelerate-config zero3 or ddp, or 4bit."
        )


def refuse_other_engine(checkpoint: Path) -> None:
    """Refuse to go on from a checkpoint whose optimiser state is of another kind, or in more or fewer pieces.

    Raises:
        InputError: naming it.
    """
    engine, pieces = sharding_of(checkpoint)
    name, how = engine or processes.sharding(), "with" if engine is not None else "without"
    if engine != processes.sharding():
        found = f"was written {how} {name}; start the same command {how} it again"
    elif pieces not in (None, processes.count()):
        found = f"was written in {pieces} pieces by {name}; start the same command in as many processes"
    else:
        return
    raise InputError(f"{checkpoint}: {found}, or remove {checkpoint.parent} to train anew.")


def train(
    settings: UnlearnSettings,
    run: RunFolder,
    model: PeftModel,
    objective: Objective,
    sets: Sets,
    refused: Sequence[TokenisedExample] | None,
    penalty: Penalty | None,
    reporter: Reporter,
) -> None:
    """Train, or resume at the last checkpoint that is whole."""
    chosen = settings.training
    pairs = ForgetRetainPairs(
        sets.forget_tokens,
        sets.retain_tokens if objective.retain is not None else None,
        refusals=refused,
        epochs=chosen.epochs,
        seed=settings.seed,
    )
    steps = -(-len(pairs) // (chosen.batch_size * chosen.gradient_accumulation_steps))
    arguments = training_arguments(
        run.checkpoints,
        learning_rate=chosen.learning_rate,
        batch_size=chosen.batch_size,
        gradient_accumulation_steps=chosen.gradient_accumulation_steps,
        warmup_steps=round(chosen.warmup_ratio * steps),
        max_grad_norm=chosen.max_grad_norm,
        gradient_checkpointing=chosen.gradient_checkpointing,
        save_steps=chosen.save_steps,
        seed=settings.seed,
        use_cpu=model.device.type == "cpu",
    )
    damaged = processes.from_main(partial(remove_damaged_checkpoints, run.checkpoints))
    checkpoint = last_complete_checkpoint(run.checkpoints)
    if damaged:
        goes_on = f"training goes on from {checkpoint.name}" if checkpoint is not None else "training starts anew"
        reporter.say(f"Damaged and removed: {', '.join(damaged)}; {goes_on}")
    if checkpoint is not None:
        refuse_other_engine(checkpoint)
    with reporter.task("Unlearning", steps) as task:
        done = 0

        def report(step: int, _steps: int, logs: dict[str, float]) -> None:
            nonlocal done
            task.advance(step - done, f"forget {logs['forget_term']:.3f} retain {logs['retain_term']:.3f}")
            done = step

        trainer = UnlearnTrainer(
            model,
            arguments,
            objective=objective,
            penalty=penalty,
            train_dataset=pairs,
            pad_token_id=sets.tokeniser.pad_token_id,
            callbacks=[TrainLog(run.train_log), Progress(report)],
        )
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
    if not processes.is_sharded(model):  # The pieces of a model that was cut compute within a step alone.
        refuse_useless(model, probe_batch(sets), steps, arguments, UNLEARNING)
    processes.stop_sharding()
