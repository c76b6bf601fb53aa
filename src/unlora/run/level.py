"""How far to forget: to the level of a model that never knew, and not past it (docs/level.md)."""

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from peft import PeftModel

from unlora import processes
from unlora.adapters.strength import at_strength, find_strength, set_strength
from unlora.errors import InputError
from unlora.level import Level, LevelSource, Settled
from unlora.metrics.intervals import mean_interval
from unlora.models.adapter_target import is_adapter, recorded_base
from unlora.models.load import LoadedModel
from unlora.models.score import score_completions
from unlora.models.wrapping import CausalModel
from unlora.run.job import Run
from unlora.run.reporter import Reporter
from unlora.run.roles import load_beside
from unlora.run.sets import Sets
from unlora.run.settings import UnlearnSettings
from unlora.suites.tofu.suite import SCORE_READERS

BATCH_SIZE = 16
"""Examples per forward pass."""
FAR = 3.0
"""So many times the level, the mean of one step's forget examples says that the whole set is not yet at it: reading it
takes as long as a step or two, and after most passes nothing else came of it."""


def level_source(settings: UnlearnSettings) -> LevelSource | None:
    """Choose whose forget probability is the level; None where unlearning goes as far as training does.

    Raises:
        InputError: a level is asked for that nothing here can tell.
    """
    aim, before = settings.level.aim, settings.level.before
    control, base = settings.evaluation.retain_only, settings.evaluation.retain_only_base
    if isinstance(aim, float):
        return LevelSource("number", f"{aim:g}")
    if aim == "none":
        return None
    if aim != "before" and control is not None:
        return LevelSource("control", control, base)
    if aim == "control":
        raise InputError("level.aim 'control': needs a model that never saw the forget set (--retain-only DIR_OR_ID).")
    if before is not None:
        return LevelSource("before", before)
    if is_adapter(settings.model.name):
        return LevelSource("before", settings.model.base or recorded_base(Path(settings.model.name)))
    if aim == "before":
        raise InputError("level.aim 'before': needs the model before it was fine-tuned (--set level.before=DIR_OR_ID).")
    return None


def stops_at_level(settings: UnlearnSettings) -> bool:
    """Whether training is to stop at a level, as far as the settings tell.

    Raises:
        InputError: as `level_source`.
    """
    return bool(settings.level.stop) and level_source(settings) is not None


def with_fixed_source(settings: UnlearnSettings) -> UnlearnSettings:
    """Name the source of the level for a run that starts from an adapter which carries earlier requests.

    The model under such an adapter is no model "before": it knows what is to be forgotten.

    Args:
        settings: of the run as it would be on the model itself.

    Raises:
        InputError: as `level_source`.
    """
    source = level_source(settings)
    changes = {"aim": "none"} if source is None else {"before": source.name} if source.kind == "before" else {}
    return settings.model_copy(update={"level": settings.level.model_copy(update=changes)})


def find_level(settings: UnlearnSettings, target: LoadedModel, sets: Sets, reporter: Reporter) -> Level | None:
    """Ask the source about the forget set, before anything is trained.

    Where the aim is "auto" and the source cannot answer, a line says why, and there is no level.

    Raises:
        InputError: an aim that was asked for by name, and no such model, or one that reads text in other tokens.
    """
    source = level_source(settings)
    if source is None:
        return None
    if processes.sharding() is not None:
        reporter.say("Level: none, because what cuts weights into pieces keeps them cut; the adapter stays as trained")
        return None
    reporter.say(f"Looking for the level: {source.name}")
    try:
        return _measure(source, target, sets)
    except InputError as error:
        if settings.level.aim != "auto":
            raise
        reporter.say(f"Level: none ({str(error).rstrip('.')}); the adapter stays as trained")
        return None


def _measure(source: LevelSource, target: LoadedModel, sets: Sets) -> Level:
    if source.kind == "number":
        return Level(source, *(float(source.name),) * 3)
    read = SCORE_READERS.get(Path(source.name).suffix)
    if read is not None:
        values = np.array([one.probability for one in read(Path(source.name)).sets.get("forget", ())], dtype=float)
    else:
        model = load_beside(source.name, source.base, target.model, target.tokenizer, role=f"level '{source.kind}'")
        values = _probabilities(model, sets)
    values = values[~np.isnan(values)]
    if not len(values):
        raise InputError(f"{source.name}: has no probability of any forget example.")
    mean = float(values.mean())
    return Level(source, mean, *(mean_interval(values) if len(values) > 1 else (mean, mean)))


class AtLevel:
    """How far a model is from the level that was found for it; asked while it trains."""

    def __init__(self, model: PeftModel, level: Level, sets: Sets) -> None:
        """Ask nothing yet."""
        self.model, self.level, self._sets = model, level, sets
        self.found: float | None = None
        """Forget probability when it was at the level or past it; None as long as it was not."""

    def __call__(self, seen: float | None) -> float:
        """Read the whole forget set, unless training has just seen that it is far from the level.

        Args:
            seen: the mean probability that the forget examples of the last step had; None where it is not known. Of
                several processes all are told the same, and the first one looks.

        Returns:
            How many times the level its mean probability is; of what is far, as far as was seen.
        """
        if seen is not None and seen > FAR * self.level.probability:
            return seen / self.level.probability
        mean = processes.from_main(self.probability)
        if mean <= self.level.probability:
            self.found = mean
        return mean / self.level.probability

    def probability(self) -> float:
        """Read the whole forget set: its mean probability."""
        return float(_probabilities(self.model, self._sets).mean())


def settle(run: Run, at_level: AtLevel | None, *, most: float, stopped: int | None = None) -> None:
    """Make the trained adapter of a run as strong as its level asks for, record it and say it; nothing without one."""
    if at_level is None:
        return
    with run.stage("level"):
        settled = dataclasses.replace(settled_at(at_level, most=most), stopped=stopped)
    run.record["level"] = settled.to_json()
    run.say(f"Level: {settled.sentence()}")


def settled_at(at_level: AtLevel, *, most: float) -> Settled:
    """Make the trained adapter as strong as the level asks for.

    The update is only multiplied: forgetting past the level is taken back on a straight line to the target, and an
    update that falls short of it goes on in its own direction.

    Args:
        at_level: of the model with the adapter that was trained; its B is multiplied. Where training stopped at the
            level, the model is as it was then, and is not read again.
        most: the largest strength.

    """
    model, level = at_level.model, at_level.level

    @cache
    def at(strength: float) -> float:
        if strength == 1 and at_level.found is not None:
            return at_level.found
        with at_strength(model, strength):
            return at_level.probability()

    as_trained = at(1.0)
    strength = find_strength(at, level.probability, most=most)
    set_strength(model, strength)
    return Settled(level, as_trained=as_trained, as_left=at(strength), strength=strength)


def _probabilities(model: CausalModel, sets: Sets) -> Float[np.ndarray, " example"]:
    sequences = [(one.input_ids, one.prompt_length) for one in sets.forget_tokens]
    scored = score_completions(model, sequences, pad_token_id=sets.tokeniser.pad_token_id, batch_size=BATCH_SIZE)
    return np.array([one.probability for one in scored])
