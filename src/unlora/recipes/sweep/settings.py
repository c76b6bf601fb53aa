"""What a sweep tries: a run's settings, a search space over their dotted keys, and how many trials."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, JsonValue, field_validator, model_validator

from unlora.config import Config, merge
from unlora.errors import InputError
from unlora.run.presets import laid_over, resolve_settings
from unlora.run.settings import UnlearnSettings
from unlora.run.starting import chosen_start
from unlora.run.training import make_objective
from unlora.suites.table import SUITES, read_suites

Scalar = str | int | float | bool | None
SHORT_ANSWER = 1
"""Tokens that a trial generates for each question: what is searched for is read from probabilities."""

MEASURED_BY = ("model", "data", "evaluation")
"""Sections of a run that say what is asked of what, and against what."""
MEASURED_BY_LEVEL = ("level", "level.aim", "level.before")
"""What the distance is measured from, where no retain-only model is given."""


class Range(Config):
    """Numbers from `low` to `high`; whole ones where both are whole."""

    low: int | float
    high: int | float
    log: bool = False
    """Search its logarithm evenly, as a learning rate wants."""

    @model_validator(mode="after")
    def _in_order(self) -> "Range":
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("low must be above 0 where log is true")
        return self

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def samples(self) -> list[Scalar]:
        """Values that must all be valid for the range to be."""
        if self.whole:
            return [self.low, self.high]
        return [self.low, self.low + 0.6180339887 * (self.high - self.low), self.high]  # no round number


class SweepSettings(Config):
    """The whole of `unlora sweep`."""

    preset: str | None = None
    """What every trial starts from, as in `unlora unlearn`."""
    base: str | None = None
    """A YAML file with a run's settings, laid over the preset."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """A run's settings, section by section, laid over both."""
    search: dict[str, Range | list[Scalar]] = Field(min_length=1)
    """Dotted key -> {low, high, log} or a list of choices."""
    starts: list[str | dict[str, JsonValue]] = Field(default_factory=list)
    """Starts to compare, each with as many trials: names, or {kind: NAME, SETTING: VALUE}; none: the base's alone."""
    trials: int = Field(default=24, ge=1)
    """For each start."""
    round: int = Field(default=4, ge=1)
    """Trials of a start that are proposed at once, by what all earlier rounds have found."""
    sampler: Literal["tpe", "nsga2"] = "tpe"
    """Optuna's sampler: tree-structured Parzen estimators, or NSGA-II with a population of `round`."""
    seed: int = Field(default=0, ge=0)
    """Of the proposals; that of the runs is settings.seed."""

    @field_validator("search", mode="before")
    @classmethod
    def _dotted(cls, value: Any) -> Any:
        for key, space in value.items() if isinstance(value, dict) else ():
            if not isinstance(space, dict | list | Range):
                raise ValueError(f"{key}: must be {{low: FROM, high: TO}} or a list of values")
            for name, held in space.items() if isinstance(space, dict) else ():
                if isinstance(held, dict | list):
                    raise ValueError(f"keys are dotted: write {key}.{name} in one word")
        return value

    @field_validator("search")
    @classmethod
    def _something_to_choose(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, space in value.items():
            if key in ("start", "start.kind"):
                raise ValueError(f"{key} is no key to search over; name the starts under 'starts'")
            if isinstance(space, list) and len(set(map(repr, space))) < max(len(space), 2):
                raise ValueError(f"{key}: needs two or more different choices")
        return value


class SweptStart(NamedTuple):
    """One start of a sweep, and what its trials have in common."""

    label: str
    """Its name in tables, and of its folder."""
    base: UnlearnSettings


def swept_starts(settings: SweepSettings) -> list[SweptStart]:
    """Resolve what the trials of each start begin with, and try every edge of the search space on it.

    Raises:
        InputError: anything that makes no run, or that leaves nothing to measure by; no model was loaded.
    """
    base = resolve_settings(
        preset_name=settings.preset,
        config_file=Path(settings.base) if settings.base is not None else None,
        flags=settings.settings,
        overrides=(),
    )
    _refuse_unmeasured(base)
    _refuse_other_measures(settings, base)
    given = settings.starts or [{"kind": base.start.kind, **base.start.fields}]
    found: list[SweptStart] = []
    for one in given:
        start = {"kind": one} if isinstance(one, str) else dict(one)
        kind = str(start.get("kind", "start"))
        label = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in kind)
        count = sum(other.label.partition("~")[0] == label for other in found)
        label += f"~{count + 1}" if count else ""
        of_start = UnlearnSettings.from_mapping({**base.model_dump(mode="json"), "start": start}, where="starts")
        for changes in _edges(settings):
            with_parameters(of_start, changes, where=f"start '{label}'")
        found.append(SweptStart(label, of_start))
    return found


def with_parameters(base: UnlearnSettings, parameters: dict[str, Scalar], *, where: str) -> UnlearnSettings:
    """Lay the parameters of a trial over the settings of its start.

    Raises:
        InputError: they make no run.
    """
    changes: dict[str, Any] = {}
    for key, value in parameters.items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        changes = merge(changes, nested)
    made = UnlearnSettings.from_mapping(laid_over(base.model_dump(mode="json"), changes), where=where)
    try:
        chosen_start(made)
        make_objective(made.objective)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return made


def as_trial(settings: UnlearnSettings) -> UnlearnSettings:
    """The same run, without long answers that nobody reads where the settings do not ask for them."""
    if settings.evaluation.max_new_tokens is not None:
        return settings
    short = settings.evaluation.model_copy(update={"max_new_tokens": SHORT_ANSWER})
    return settings.model_copy(update={"evaluation": short})


def _edges(settings: SweepSettings) -> list[dict[str, Scalar]]:
    first = {key: _values(space)[0] for key, space in settings.search.items()}
    return [first, *({**first, key: value} for key, space in settings.search.items() for value in _values(space)[1:])]


def _values(space: Range | list[Scalar]) -> list[Scalar]:
    return space.samples() if isinstance(space, Range) else space


def _refuse_other_measures(settings: SweepSettings, base: UnlearnSettings) -> None:
    """Refuse to search over what trials are measured by: the best would be the one that was asked the easiest."""
    of_level = MEASURED_BY_LEVEL if base.evaluation.retain_only is None else ()
    for key in settings.search:
        if key.partition(".")[0] in MEASURED_BY or key in of_level:
            raise InputError(
                f"search.{key}: trials would be measured each by something else; set it under 'settings', and compare "
                "sweeps."
            )


def _refuse_unmeasured(base: UnlearnSettings) -> None:
    """Refuse a run that does not say how far it is from its level."""
    evaluation = base.evaluation
    if evaluation.skip:
        raise InputError("settings.evaluation.skip: a sweep chooses by the evaluation of its trials; set it to false.")
    first = read_suites(evaluation.suites)[0]
    if first.is_own or SUITES[first.kind].brings_data:
        raise InputError(
            f"settings.evaluation.suites: a sweep reads the suite tofu first (found '{first.name}' there)."
        )
    if evaluation.retain_only is None and base.level.aim == "none":
        raise InputError(
            "settings: there is no level to measure the distance from; set evaluation.retain_only to a model that "
            "never saw the forget set, or level.aim to a probability."
        )
