"""The training stage of a run: the objective that its settings name, what that reads, and the steps themselves."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from peft import PeftModel

from unlora import processes
from unlora.data.forget_retain import ForgetRetainPairs
from unlora.data.records import ExampleSet
from unlora.data.refusals import REFUSAL_TEXTS, read_refusals, refuse_each
from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError
from unlora.losses import Objective
from unlora.models.wrapping import CausalModel
from unlora.own_code import import_own
from unlora.run.input_settings import ModelSettings
from unlora.run.job import Run
from unlora.run.sets import Sets, probe_batch
from unlora.run.settings import ObjectiveSettings, TrainingSettings
from unlora.run.trackers import tracked
from unlora.training import UnlearnTrainer, training_arguments
from unlora.training.callbacks import UNLEARNING, ReportSteps, SealCheckpoints, TrainLog, refuse_useless
from unlora.training.checkpoints import last_complete_checkpoint, remove_damaged_checkpoints, sharding_of
from unlora.training.parts import BatchPlan
from unlora.training.stopping import StopAt
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
        separation=settings.separation,
        forget_strength=settings.forget_strength,
    )


def load_refusals(objective: Objective, settings: ObjectiveSettings) -> tuple[str, ...] | None:
    """Return the refusals to draw from; None where the objective reads none.

    Raises:
        InputError: a file that cannot be read, or one that nothing reads.
    """
    if objective.needs_refusals:
        return read_refusals(Path(settings.refusals)) if settings.refusals is not None else REFUSAL_TEXTS
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


def find_trainer(name: str | None) -> type[UnlearnTrainer]:
    """The class that "module:Class" names; None is `UnlearnTrainer` itself.

    Raises:
        InputError: there is none, or it is no trainer of that kind.
    """
    if name is None:
        return UnlearnTrainer
    found = import_own(name, "training.trainer")
    if not (isinstance(found, type) and issubclass(found, UnlearnTrainer)):
        raise InputError(f"training.trainer '{name}': must be a class that subclasses unlora.UnlearnTrainer.")
    return found


class Lesson:
    """What a run is trained to do: its objective, the refusals that stand in for answers where it reads some, and the
    trainer that minimises it.
    """

    def __init__(self, settings: ObjectiveSettings, trainer: str | None = None) -> None:
        """Make the objective and find the trainer.

        Raises:
            InputError: a term, a parameter, a weight or a trainer that there is not.
        """
        self._settings = settings
        self.objective = make_objective(settings)
        self.trainer = find_trainer(trainer)
        self.refusals: tuple[str, ...] | None = None
        self.refused: list[TokenisedExample] | None = None
        """One refusal a forget example; None where the objective reads none."""
        self.over_level: Callable[[float | None], float] | None = None
        """How many times its level the forget probability is, for `StopAt`; told what the last step saw of the forget
        set (`UnlearnTrainer.seen`). None where training goes on to its end."""
        self.exactly = False
        """Whether training stops at the very step that passes the level."""

    def load(self) -> None:
        """Read the refusals to draw from.

        Raises:
            InputError: a file that cannot be read, or one that nothing reads.
        """
        self.refusals = load_refusals(self.objective, self._settings)

    def refuse_unless_fits(self, model: CausalModel) -> None:
        """Refuse a model that has fewer blocks than the objective reads.

        Raises:
            InputError: it has.
        """
        BatchPlan.of(self.objective).refuse_unless_fits(model)

    def answer(self, sets: Sets, seed: int) -> None:
        """Answer the forget set with refusals, where the objective reads some.

        Raises:
            InputError: an example is plain text, which no refusal can answer.
        """
        if self.refusals is not None:
            self.refused = refuse_each(sets.tokeniser, sets.forget.examples, seed=seed, refusals=self.refusals)

    def pairs(self, sets: Sets, *, epochs: int, seed: int) -> ForgetRetainPairs:
        """The examples of training, in their order."""
        retain = sets.retain_tokens if self.objective.retain is not None else None
        return ForgetRetainPairs(sets.forget_tokens, retain, refusals=self.refused, epochs=epochs, seed=seed)


def refuse_engine(model: ModelSettings) -> None:
    """Refuse what cannot be trained on pieces of each weight.

    Raises:
        InputError: naming the setting.
    """
    engine = processes.sharding()
    if engine == "fsdp2" and model.quantisation == "8bit":
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


def resume_point(run: Run) -> Path | None:
    """The last checkpoint that is whole; damaged ones are removed, and said.

    Raises:
        InputError: it was written by another engine.
    """
    damaged = processes.from_main(partial(remove_damaged_checkpoints, run.checkpoints))
    checkpoint = last_complete_checkpoint(run.checkpoints)
    if damaged:
        goes_on = f"training goes on from {checkpoint.name}" if checkpoint is not None else "training starts anew"
        run.say(f"Damaged and removed: {', '.join(damaged)}; {goes_on}")
    if checkpoint is not None:
        refuse_other_engine(checkpoint)
    return checkpoint


def train(
    run: Run, settings: TrainingSettings, model: PeftModel, lesson: Lesson, sets: Sets, penalty: Penalty | None
) -> int | None:
    """Train, or resume at the last checkpoint that is whole; the step at which it was enough, None at the end."""
    epochs = settings.passes(len(sets.forget_tokens), to_level=lesson.over_level is not None)
    run.record["epochs"] = epochs
    pairs = lesson.pairs(sets, epochs=epochs, seed=run.seed)
    steps = -(-len(pairs) // settings.at_once)
    arguments = training_arguments(
        run.checkpoints,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        warmup_steps=round(settings.warmup_ratio * steps),
        max_grad_norm=settings.max_grad_norm,
        gradient_checkpointing=settings.gradient_checkpointing,
        save_steps=settings.save_steps,
        seed=run.seed,
        use_cpu=model.device.type == "cpu",
        **tracked(settings.report_to, run.path),
    )
    checkpoint = resume_point(run)
    over = lesson.over_level
    stop = StopAt(lambda: over(trainer.seen), epochs, exactly=lesson.exactly) if over is not None else None
    with run.task("Unlearning", steps) as task:
        done = 0

        def report(step: int, _steps: int, logs: dict[str, float]) -> None:
            nonlocal done
            task.advance(step - done, f"forget {logs['forget_term']:.3f} retain {logs['retain_term']:.3f}")
            task.plot({"forget term": logs["forget_term"], "retain term": logs["retain_term"]})
            done = step

        trainer = lesson.trainer(
            model,
            arguments,
            objective=lesson.objective,
            penalty=penalty,
            train_dataset=pairs,
            pad_token_id=sets.tokeniser.pad_token_id,
            callbacks=[SealCheckpoints(), TrainLog(run.train_log), ReportSteps(report), *([stop] if stop else [])],
        )
        trainer.sees = stop is not None
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
    if not processes.is_sharded(model):  # The pieces of a model that was cut compute within a step alone.
        refuse_useless(model, probe_batch(sets), trainer.state.global_step, arguments, UNLEARNING)
    processes.stop_sharding()
    return stop.stopped if stop is not None else None
