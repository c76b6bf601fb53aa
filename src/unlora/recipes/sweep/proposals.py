"""What the optimiser proposes, and its memory of what came of it: one Optuna study for each start, in one file.

The trials of a round depend on the settings of the sweep and on what all earlier rounds have found, and on nothing
else: the sampler is made anew for each round, seeded by sweep, start and round, and knows finished rounds alone. So it
does not matter in which order trials end, in how many processes, or how often the sweep was killed in between.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from unlora.artifacts import advised, read_json_lines
from unlora.recipes.sweep.settings import Range, Scalar, SweepSettings

DIRECTIONS = ("minimize", "maximize")
"""Of the distance from the level, and of what is kept."""

SAMPLERS: Mapping[str, Callable[[int, int], BaseSampler]] = {
    "tpe": lambda seed, size: TPESampler(seed=seed, n_startup_trials=size),
    "nsga2": lambda seed, size: NSGAIISampler(seed=seed, population_size=max(size, 2)),
}
"""Name -> from a seed and the size of a round, the sampler."""


class Proposal(NamedTuple):
    """One trial before it is run."""

    number: int
    """Among those of its start, from 0."""
    parameters: dict[str, Scalar]


class Told(NamedTuple):
    """What came of a trial."""

    values: tuple[float, float] | None
    """Distance and what is kept, on the validation part; None where the run failed."""
    user_attrs: dict[str, Any]
    """All else that is known of it, ready for JSON."""


def distributions(search: Mapping[str, Range | list[Scalar]]) -> dict[str, BaseDistribution]:
    """The search space as Optuna takes it."""
    return {key: _distribution(space) for key, space in search.items()}


def _distribution(space: Range | list[Scalar]) -> BaseDistribution:
    if not isinstance(space, Range):
        return CategoricalDistribution(space)
    kind = IntDistribution if space.whole else FloatDistribution
    return kind(space.low, space.high, log=space.log)  # type: ignore[arg-type]


def open_storage(file: Path) -> BaseStorage:
    """Open the journal of a sweep, in which only the process that holds the lock of the sweep writes.

    A line that a kill has left half written is taken away, and so is the lock of a writer that is no more.

    Raises:
        InputError: it is damaged.
    """
    Path(f"{file}.lock").unlink(missing_ok=True)
    if file.is_file():
        whole = file.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.truncate(file, end)
        with advised("remove it, and the same command makes it again from the runs beside it"):
            read_json_lines(file)
    return JournalStorage(JournalFileBackend(str(file)))


class Proposals:
    """The proposals for one start."""

    def __init__(self, storage: BaseStorage, label: str, settings: SweepSettings) -> None:
        """Find what is known of it already."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._settings, self._label = settings, label
        self._space = distributions(settings.search)
        self._study = optuna.create_study(
            study_name=label, directions=DIRECTIONS, storage=storage, load_if_exists=True, sampler=TPESampler(seed=0)
        )
        self._asked: optuna.Study | None = None
        self._live: list[optuna.Trial] = []

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that are known, in their order."""
        return self._study.get_trials(deepcopy=False)

    def next_round(self) -> list[Proposal]:
        """Propose what is still to be run of the present round; nothing where the sweep has all its trials."""
        done, size = self.finished, self._settings.round
        if len(done) >= self._settings.trials:
            return []
        number = len(done) // size
        begun = done[number * size :]
        count = min(size, self._settings.trials - number * size)
        make = SAMPLERS[self._settings.sampler]
        self._asked = optuna.create_study(directions=DIRECTIONS, sampler=make(self._seed(number), size))
        self._asked.add_trials(done[: number * size])
        self._live = [self._asked.ask(self._space) for _ in range(count)][len(begun) :]
        return [Proposal(trial.number, dict(trial.params)) for trial in self._live]

    def tell(self, found: Sequence[Told]) -> None:
        """Keep what came of the trials that `next_round` proposed, in their order."""
        if self._asked is None:
            return
        for trial, told in zip(self._live, found, strict=True):
            for key, value in told.user_attrs.items():
                trial.set_user_attr(key, value)
            state = TrialState.FAIL if told.values is None else TrialState.COMPLETE
            self._study.add_trial(self._asked.tell(trial, told.values, state=state))

    def _seed(self, number: int) -> int:
        text = f"{self._settings.seed} {self._label} {number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other point beats: nearer to the level and no less kept, or the other way round."""
    study = optuna.create_study(directions=DIRECTIONS, sampler=TPESampler(seed=0))
    study.add_trials([optuna.trial.create_trial(values=list(point)) for point in points])
    return [trial.number for trial in study.best_trials]
