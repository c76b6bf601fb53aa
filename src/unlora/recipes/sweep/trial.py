"""One trial: an ordinary unlearning run in a folder of its own, and what is read of it."""

from pathlib import Path
from typing import NamedTuple

import torch

from unlora.artifacts import read_json_object
from unlora.errors import InputError, TrainingDivergedError
from unlora.locks import alone_in
from unlora.recipes.sweep.halves import measure_parts
from unlora.recipes.sweep.proposals import Told
from unlora.recipes.unlearn import unlearn
from unlora.run.settings import UnlearnSettings
from unlora.run.side_by_side import PATIENCE
from unlora.training.callbacks import read_train_log


class SweepTrial(NamedTuple):
    """One run of a sweep."""

    start: str
    """Label of its start."""
    number: int
    """Among those of its start."""
    settings: UnlearnSettings
    folder: Path
    """Of its run."""


def run_trial(trial: SweepTrial) -> tuple[str, int, Told]:
    """Run it, or find it finished; returns its start, its number, and what came of it.

    A run that diverged, or whose settings this model cannot take, is a result: those settings do not work. Called in a
    process of its own where there are several, so it is a function of a module.
    """
    place = trial.folder.parent / f"{trial.folder.name}.trial"  # what a killed start has left there is waited for
    with alone_in(place, patience=PATIENCE):
        try:
            unlearn(_on_its_device(trial), trial.folder)
            told = _found(trial)
        except TrainingDivergedError as error:
            told = Told(None, {"failed": str(error)})
        except InputError as error:
            told = Told(None, {"failed": str(error), "refused": True})
    return trial.start, trial.number, told


def _found(trial: SweepTrial) -> Told:
    parts = measure_parts(trial.folder, trial.settings)
    chosen_by = parts["validation"]
    stages = read_json_object(trial.folder / "record.json")["stages"]
    spent = {
        "steps": len(read_train_log(trial.folder / "train_log.jsonl")),
        "seconds": round(sum(stage["seconds"] for stage in stages.values()), 1),
    }
    return Told((chosen_by.distance, chosen_by.kept), {name: part._asdict() for name, part in parts.items()} | spent)


def _on_its_device(trial: SweepTrial) -> UnlearnSettings:
    """Share the GPUs of the machine out by the trials' numbers, where the settings leave the device open."""
    count = torch.cuda.device_count()
    if count < 2 or trial.settings.model.device != "auto":
        return trial.settings
    model = trial.settings.model.model_copy(update={"device": f"cuda:{trial.number % count}"})
    return trial.settings.model_copy(update={"model": model})
